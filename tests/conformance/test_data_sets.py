"""What every data set must do, asked of every data set alike.

A new entry in the registry is picked up by itself. What comes over the network comes from a server
on this machine here, which has small archives in the published formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.data_server import (
    Server,
    california_files,
    cifar_files,
    serving,
    sign_files,
    tar_gz,
    zipped,
)
from toolkit.core.documents import canonical
from toolkit.core.errors import UsageError
from toolkit.core.options import settle
from toolkit.core.specs import TaskKind
from toolkit.data import DATA_SETS, data_set, load_splits
from toolkit.data.augment import STEPS
from toolkit.data.base import DataSet, Request, Splits
from toolkit.data.california_housing import CaliforniaHousing
from toolkit.data.cifar import Cifar10, Cifar100
from toolkit.data.gtsrb import TrafficSigns

SHAPES = {
    "digits": [(3, 32, 32), (3, 48, 48), (3, 64, 64)],
    "diabetes": [(10,)],
    "california-housing": [(8,)],
    "cifar10": [(3, 32, 32)],
    "cifar100": [(3, 32, 32)],
    "gtsrb": [(3, 32, 32), (3, 48, 48), (3, 64, 64)],
}
FILES = ["rows.csv", "rows.npz"]


def small(server: Server) -> dict[str, Callable[[], DataSet]]:
    """The data sets of the network, on small archives of the same form."""
    signs = [server.publish(name, zipped(files)) for name, files in sign_files().items()]
    housing = server.publish("cal_housing.tgz", tar_gz(california_files()))
    ten = server.publish("cifar-10-binary.tar.gz", tar_gz(cifar_files(10)))
    hundred = server.publish("cifar-100-binary.tar.gz", tar_gz(cifar_files(100)))
    return {
        "california-housing": lambda: CaliforniaHousing(housing),
        "cifar10": lambda: Cifar10(ten),
        "cifar100": lambda: Cifar100(hundred),
        "gtsrb": lambda: TrafficSigns(*signs),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for downloads, with the user's own files in it."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 4))
    np.savetxt(folder / "rows.csv", rows, delimiter=",", header="a,b,c,d", comments="")
    np.savez(folder / "rows.npz", inputs=rows, targets=rng.integers(0, 3, 30))
    return folder


@pytest.fixture(scope="module")
def makers(place: Path) -> Iterator[dict[str, Callable[[], DataSet]]]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("NO_PROXY", "127.0.0.1")
        server = stack.enter_context(serving())
        known = {name: lambda name=name: DATA_SETS.create(name) for name in DATA_SETS.names()}
        own = {name: lambda name=name: data_set(str(place / name)) for name in FILES}
        yield {**known, **own, **small(server)}


@pytest.fixture(scope="module", params=[*DATA_SETS.names(), *FILES])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


Load = Callable[..., Splits]


@pytest.fixture(scope="module")
def load(name: str, makers: dict[str, Callable[[], DataSet]], place: Path) -> Load:
    """Loads the data set by a new instance, each time."""

    def loaded(shape: tuple[int, ...] | None = None, **settings: str) -> Splits:
        source = makers[name]()
        settled = settle(name, source.options, settings)
        return source.load(Request(shape=shape, directory=place, settings=settled))

    return loaded


@pytest.fixture(scope="module")
def splits(load: Load) -> Splits:
    return load()


def test_arrays_are_as_the_task_says(splits: Splits) -> None:
    task = splits.task
    for split in (splits.train, splits.test):
        assert len(split) > 0
        assert split.inputs.shape == (len(split), *task.input_shape)
        assert split.inputs.dtype == np.float32
        assert split.inputs.flags.c_contiguous
        assert split.targets.flags.c_contiguous
        assert np.isfinite(split.inputs).all()
        if task.kind is TaskKind.CLASSIFICATION:
            assert (split.targets.shape, split.targets.dtype) == ((len(split),), np.int64)
            assert 0 <= split.targets.min() <= split.targets.max() < task.outputs
        else:
            assert split.targets.shape == (len(split), task.outputs)
            assert split.targets.dtype == np.float32
            assert np.isfinite(split.targets).all()


def test_every_load_gives_the_same_rows_in_the_same_order(splits: Splits, load: Load) -> None:
    again = load()
    for one, other in ((splits.train, again.train), (splits.test, again.test)):
        assert one.inputs.tobytes() == other.inputs.tobytes()
        assert one.targets.tobytes() == other.targets.tobytes()
        assert not np.shares_memory(one.inputs, other.inputs)
    assert (splits.task, splits.preprocessing) == (again.task, again.preprocessing)


def test_no_test_row_is_a_training_row(splits: Splits) -> None:
    """The published splits hold it by their makers, all others by the split here."""
    train, test = ({row.tobytes() for row in s.inputs} for s in (splits.train, splits.test))
    assert not train & test


def test_rows_come_in_every_shape_that_is_promised_and_no_other(name: str, load: Load) -> None:
    shapes = SHAPES.get(name) or [load().task.input_shape]
    for shape in shapes:
        assert load(shape).task.input_shape == shape
    for shape in ((3, 33, 33), (7,), ()):
        with pytest.raises(UsageError, match="The model takes rows of") as caught:
            load(shape)
        assert " or ".join(" x ".join(map(str, given)) for given in shapes) in caught.value.problem


def test_preprocessing_can_be_stored(splits: Splits) -> None:
    canonical(dict(splits.preprocessing))


def test_options_and_augmentation_are_known(
    name: str, makers: dict[str, Callable[[], DataSet]], splits: Splits
) -> None:
    source = makers[name]()
    settle(name, source.options, None)
    assert set(source.augmentation) <= set(STEPS)
    assert not source.augmentation or len(splits.task.input_shape) == 3
    assert name in FILES or source.name == name


def test_every_option_s_value_loads(
    name: str, makers: dict[str, Callable[[], DataSet]], load: Load
) -> None:
    for option, described in makers[name]().options.items():
        for value in described.choices or ():
            if name != "rows.csv":  # whose rows are no classes
                load(**{option: value})


def test_every_data_set_says_its_shapes_here() -> None:
    assert set(SHAPES) == set(DATA_SETS.names())


@pytest.mark.parametrize("name", ["california-housing", "cifar10", "cifar100", "gtsrb"])
def test_without_a_network_the_published_files_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the public door: a mirror that refuses, and --data-dir."""
    from toolkit.core.errors import UnavailableError
    from toolkit.data import downloads

    monkeypatch.setattr(downloads, "PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TOOLKIT_DATA_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError) as caught:
        load_splits(name, directory=tmp_path)
    assert "https://" in caught.value.hint
    assert str(tmp_path) in caught.value.hint
    assert "--data digits" in caught.value.hint
