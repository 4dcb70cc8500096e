"""Registries: lazy, open to installed third parties, and clear about what is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from calibration import METHODS
from exporters import EXPORTERS
from models import FAMILIES
from runtimes import RUNTIMES
from tests.conftest import run_toolkit
from toolkit.core.errors import (
    FeedError,
    PluginError,
    ToolkitError,
    ToolkitWarning,
    UnavailableError,
    UnknownNameError,
)
from toolkit.core.registry import Entry, Registry
from toolkit.data import DATA_SETS
from toolkit.trainers import TRAINERS

GROUP = "toolkit.things"
GROUPS = {
    "toolkit.models": ("models", "FAMILIES"),
    "toolkit.exporters": ("exporters", "EXPORTERS"),
    "toolkit.calibration": ("calibration", "METHODS"),
    "toolkit.runtimes": ("runtimes", "RUNTIMES"),
    "toolkit.data": ("toolkit.data", "DATA_SETS"),
    "toolkit.trainers": ("toolkit.trainers", "TRAINERS"),
}
REGISTRIES = [FAMILIES, EXPORTERS, METHODS, RUNTIMES, DATA_SETS, TRAINERS]
registries = pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own on the import path, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def install(site: Path, distribution: str, point: str, *groups: str) -> None:
    info = site / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("".join(f"[{g}]\n{point}\n" for g in groups or [GROUP]))


def test_nothing_is_imported_before_its_use(site: Path):
    (site / "plug_lazy.py").write_text("class Plugin: pass\n")
    registry = Registry("lazy", {"one": Entry("plug_lazy:Plugin")})
    assert registry.names() == ["one"]
    assert registry.entry("one").target == "plug_lazy:Plugin"
    assert "plug_lazy" not in sys.modules
    assert type(registry.create("one")).__name__ == "Plugin"


def test_each_creation_is_a_fresh_one():
    registry = Registry("thing", {"one": Entry("collections:OrderedDict")})
    assert registry.create("one") is not registry.create("one")


@pytest.mark.parametrize("use", [Registry.entry, Registry.create])
def test_unknown_name_gives_the_nearest(use):
    registry = Registry("thing", {"torch": Entry("a:b"), "openvino": Entry("a:b")})
    with pytest.raises(UnknownNameError, match=r"no thing named 'touch'.*\n.*'torch'"):
        use(registry, "touch")


def test_missing_package_names_the_command_that_installs_it():
    registry = Registry("thing", {"one": Entry("no_such_package:X", extra="cpu")})
    with pytest.raises(UnavailableError, match="no_such_package") as caught:
        registry.create("one")
    assert "pip install 'inference-toolkit[cpu]'" in caught.value.hint


def test_command_without_an_extra_is_the_plain_one():
    assert Entry("a:b").install == "pip install 'inference-toolkit'"


@pytest.mark.parametrize(
    "source",
    ["raise RuntimeError('old driver')", "class Other: pass", "class Plugin:\n  x: nonsense = 1/0"],
)
def test_plugin_that_breaks_on_import_is_unavailable(site: Path, source: str):
    (site / "plug_broken.py").write_text(source)
    with pytest.raises(UnavailableError, match="'one' failed on import"):
        Registry("thing", {"one": Entry("plug_broken:Plugin")}).create("one")


def test_error_of_ours_passes_as_it_is(site: Path):
    (site / "plug_ours.py").write_text(
        "from toolkit.core.errors import FeedError\n"
        "def Plugin(): raise FeedError('It broke.', hint='Fix it.')\n"
    )
    with pytest.raises(FeedError, match=r"It broke\."):
        Registry("thing", {"one": Entry("plug_ours:Plugin")}).create("one")


def test_installed_third_party_adds_a_name_after_ours(site: Path):
    install(site, "third-party", "theirs = plug_theirs:Plugin")
    (site / "plug_theirs.py").write_text("class Plugin: pass\n")
    registry = Registry("thing", {"one": Entry("collections:OrderedDict")}, group=GROUP)
    assert registry.names() == ["one", "theirs"]
    assert type(registry.create("theirs")).__module__ == "plug_theirs"


def test_third_party_of_another_kind_is_not_asked(site: Path):
    install(site, "third-party", "theirs = plug_theirs:Plugin", "toolkit.others")
    assert Registry("thing", {}, group=GROUP).names() == []


def test_built_in_plugin_works_beside_a_third_party_s_of_its_name(site: Path):
    install(site, "third-party", "one = no_such_package:Plugin")
    install(site, "other-party", "two = plug_theirs:Plugin")
    registry = Registry("thing", {"one": Entry("collections:OrderedDict")}, group=GROUP)
    with pytest.warns(ToolkitWarning, match=r"third-party brings a thing named 'one'.*built-in"):
        assert registry.names() == ["one", "two"]
    assert type(registry.create("one")).__name__ == "OrderedDict"


def test_name_of_two_third_parties_is_an_error_only_where_it_is_used(site: Path):
    install(site, "first", "same = first_module:X")
    install(site, "second", "same = second_module:X")
    registry = Registry("thing", {"one": Entry("collections:OrderedDict")}, group=GROUP)
    assert registry.names() == ["one"]
    assert registry.create("one") is not None
    with pytest.raises(PluginError, match=r"named 'same': .*\(.*:X\), ") as caught:
        registry.create("same")
    assert "first (first_module:X)" in caught.value.problem
    assert "second (second_module:X)" in caught.value.problem


def test_the_command_line_warns_of_a_built_in_name_and_goes_on(tmp_path: Path):
    install(tmp_path, "third-party", "onnxruntime = no_such_package:Plugin", "toolkit.runtimes")
    done = run_toolkit("doctor", "--json", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "warning: The package third-party brings a runtime named 'onnxruntime'" in done.stderr
    assert "UserWarning" not in done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["runtimes"]}
    assert found["onnxruntime"]["status"] == "ok"


@registries
def test_own_names_are_kebab_case(registry: Registry):
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in registry.names())


@registries
def test_entries_without_an_extra_can_be_made_here(registry: Registry):
    entries = registry.entries.items()
    plain = [name for name, entry in entries if entry.extra is None and entry.command is None]
    assert plain
    for name in plain:
        assert registry.create(name) is not None


def test_what_pip_cannot_install_names_its_command():
    broken = Registry("thing", {"one": Entry("no_such_module:X", command="make one-env")})
    with pytest.raises(UnavailableError, match="could not be imported") as caught:
        broken.create("one")
    assert caught.value.hint == "Install what it needs: make one-env"


def test_closed_registry_asks_no_third_party(site: Path):
    install(site, "third-party", "theirs = plug_theirs:Plugin")
    assert Registry("thing", {"one": Entry("a:b")}).names() == ["one"]


def test_every_kind_is_open_to_an_installed_package(site: Path):
    install(site, "third-party", "theirs = plug:Plugin", *GROUPS)
    script = f"import sys; sys.path.append({str(site)!r})\n" + "".join(
        f"from {module} import {name}; assert 'theirs' in {name}.names(), '{name}'\n"
        for module, name in GROUPS.values()
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_broken_third_party_is_the_one_to_install(site: Path):
    install(site, "third-party", "theirs = no_such_package:Plugin")
    with pytest.raises(ToolkitError) as caught:
        Registry("thing", {}, group=GROUP).create("theirs")
    assert "third-party" in caught.value.hint
