"""Choose the samples for calibration, and others for the comparison with the float model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.core.dtypes import is_floating
from toolkit.core.errors import UsageError
from toolkit.core.files import digest_bytes
from toolkit.core.progress import Progress
from toolkit.core.specs import Feeds, Signature
from toolkit.sources.inputs import check_feeds, load_inputs, load_rows

SAMPLES = 256  # by default; all, if there are fewer
MOST_HELD = 512  # largest number of samples on which outputs are compared


@dataclass(frozen=True, kw_only=True)
class SampleSelection:
    """Chosen samples: those at indices `places` of `arrays`, which has an array per input name.

    `digest` covers the samples in order.
    """

    arrays: Mapping[str, np.ndarray]
    signature: Signature
    places: np.ndarray
    description: str

    def __len__(self) -> int:
        return len(self.places)

    @property
    def digest(self) -> str:
        return digest_bytes("".join(self.digests()).encode())

    def digests(self) -> Iterator[str]:
        """Yield the digest of each sample."""
        for place in self.places:
            row = self.signature.rows(self.arrays, np.array([place]))
            yield digest_bytes(b"".join(row[name].tobytes() for name in sorted(row)))

    def feeds(self, start: int, count: int) -> Feeds:
        """Return `count` samples from `start` on, or fewer at the end."""
        return self.signature.rows(self.arrays, self.places[start : start + count])

    def whole(self, batch: int) -> Self:
        """Return a copy without the samples of an incomplete last batch."""
        return replace(self, places=self.places[: len(self) // batch * batch])

    def first(self, count: int) -> Self:
        return replace(self, places=self.places[:count])

    def batches(self, size: int) -> Iterator[Feeds]:
        for start in range(0, len(self), size):
            yield self.feeds(start, size)


@dataclass(frozen=True, kw_only=True)
class CalibrationRows:
    """Samples `used` for calibration, and samples `held` for the comparison with the float model.

    `left_out` counts the training samples that were skipped because they are test samples as well.
    `note` is a warning if the test samples are unknown.
    """

    used: SampleSelection
    held: SampleSelection
    left_out: int = 0
    note: str | None = None

    def to_json(self) -> Json:
        return {
            "rows": self.used.description,
            "samples": len(self.used),
            "rows_digest": self.used.digest,
            "left_out": self.left_out,
            "held": self.held.description,
        }


def pick_rows(
    artifact: Artifact,
    data: str,
    *,
    samples: int | None,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> CalibrationRows:
    """Choose samples from a data set or file; the same seed gives the same samples.

    Those for calibration are training samples that are not test samples as well; those for the
    comparison are test samples. In an .npz file with an array per input, the test samples are
    unknown. Calibration then uses any samples, and the comparison the remaining ones, or the same
    if none remain. Raises UsageError for more samples than there are, for a number that is not a
    multiple of a fixed batch, for NaN or infinity, and for samples that the model does not accept.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"Got {samples} samples, expected 1 or more.", hint="Give --samples 1.")
    rng = np.random.default_rng(seed)
    signature = artifact.signature
    names = [spec.name for spec in signature.inputs]
    own = _own_arrays(data, signature)
    if own is not None:
        count = signature.count_rows(own) or 0
        wanted = _wanted(samples, count, data)
        order = rng.permutation(count)
        rest = order[wanted:] if wanted < count else order
        used = SampleSelection(
            arrays=own,
            signature=signature,
            places=order[:wanted],
            description=f"rows of {data}",
        )
        found = CalibrationRows(
            used=used,
            held=replace(
                used,
                places=rest[:MOST_HELD],
                description=f"{'other' if wanted < count else 'the same'} rows of {data}",
            ),
            note=f"{data} does not say which rows are test rows: keep it to others than you test "
            "with.",
        )
    else:
        if len(names) != 1:
            raise UsageError(
                f"{data} gives one input, the model takes {signature.describe_inputs()}.",
                hint="Give an .npz file with an array for each input, by name.",
            )
        rows = load_rows(artifact, data, settings=settings, directory=directory, progress=progress)
        train, test = (
            SampleSelection(
                arrays={names[0]: rows[kind].inputs},
                signature=signature,
                places=np.arange(len(rows[kind])),
                description=f"{what} rows of {data}",
            )
            for kind, what in (("train", "training"), ("test", "test"))
        )
        places, left_out = _apart(train, test, samples, data, rng)
        held = rng.permutation(len(test))[:MOST_HELD]
        found = CalibrationRows(
            used=replace(train, places=places),
            held=replace(test, places=held),
            left_out=left_out,
        )
    fixed = signature.batch_axis
    batch = fixed if isinstance(fixed, int) else 1
    found = replace(found, held=found.held.whole(batch), used=found.used.whole(batch))
    if samples not in (None, len(found.used)):
        raise UsageError(
            f"Got {samples} samples, and {artifact.path} runs at batch {batch} only.",
            hint=f"Give --samples {max(batch, len(found.used))}.",
        )
    for picked in (found.used, found.held):
        check_feeds(signature, picked.feeds(0, batch), f"The {picked.description}")
        _require_finite(picked)
    return found


def _own_arrays(data: str, signature: Signature) -> Mapping[str, np.ndarray] | None:
    """Return the arrays of an .npz file if it has exactly one per input, else None."""
    path = Path(data)
    if path.suffix.lower() != ".npz" or not path.is_file():
        return None
    found = load_inputs(path, signature)
    names = [spec.name for spec in signature.inputs]
    return {name: found[name] for name in names} if found.keys() == set(names) else None


def _apart(
    train: SampleSelection,
    test: SampleSelection,
    samples: int | None,
    data: str,
    rng: np.random.Generator,
) -> tuple[np.ndarray, int]:
    """Return the indices of training samples that are not test samples, and the number skipped.

    Samples are compared by digest.
    """
    total = len(train)
    tested = set(test.digests())
    wanted = _wanted(samples, total, data)
    found: list[int] = []
    left_out = 0
    for place in rng.permutation(total):
        if len(found) == wanted:
            break
        if next(replace(train, places=np.array([place])).digests()) in tested:
            left_out += 1
        else:
            found.append(int(place))
    if not found or (samples is not None and len(found) < wanted):
        raise _too_many(wanted, len(found), f"training rows of {data} that are no test rows")
    return np.array(found), left_out


def _wanted(samples: int | None, count: int, data: str) -> int:
    if not count or (samples is not None and samples > count):
        raise _too_many(samples or 1, count, f"rows of {data} to calibrate on")
    return min(SAMPLES, count) if samples is None else samples


def _too_many(samples: int, count: int, what: str) -> UsageError:
    return UsageError(
        f"Got {samples} samples, and there are {count} {what}.",
        hint="Give fewer --samples, or other --data.",
    )


def _require_finite(picked: SampleSelection) -> None:
    """Raise UsageError for a sample with NaN or +infinity; -infinity is allowed, as in masks."""
    for place in picked.places:
        row = picked.signature.rows(picked.arrays, np.array([place]))
        for name, array in row.items():
            if is_floating(array.dtype) and not (np.isfinite(array) | np.isneginf(array)).all():
                raise UsageError(
                    f"Row {place} of {name!r}, of the {picked.description}, has NaN or infinity.",
                    hint="Fix or remove that row.",
                )
