"""`scripts/install` takes from an index only the files whose hashes the lock records."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "install"


class Place:
    """A project folder with scripts/install and locks, an index of wheels, and an environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("scripts", "locks", "wheels"):
            (folder / name).mkdir()
        shutil.copy(SCRIPT, folder / "scripts")
        venv.create(folder / "env", with_pip=False)
        self.python = folder / "env/bin/python"
        packages = next(folder.glob("env/lib/python*/site-packages"))
        # pip is not imported: it replaces the distutils of the process that imports it.
        (packages / "pip").symlink_to(Path(sysconfig.get_path("purelib")) / "pip")
        self.python.with_name("pip").write_text(f'#!/bin/sh\nexec {self.python} -m pip "$@"\n')
        self.python.with_name("pip").chmod(0o755)
        self.lock("build", self.wheel("tool", "1.0"))

    def wheel(self, name: str, version: str, requires: str | None = None) -> Path:
        """Write a wheel of one module, and return its path."""
        path = self.folder / "wheels" / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.py", "")
            archive.writestr(
                f"{info}/METADATA", metadata + (f"Requires-Dist: {requires}\n" if requires else "")
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        return path

    def lock(self, name: str, *wheels: Path) -> None:
        """Write a lock that pins the version and the file of each wheel."""
        lines = []
        for wheel in wheels:
            package, version = wheel.name.split("-")[:2]
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            lines.append(f"{package}=={version} --hash=sha256:{digest}\n")
        (self.folder / "locks" / f"{name}.txt").write_text("".join(lines))

    def install(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run `scripts/install name` with no index but the folder of wheels."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PIP_")
        }
        environment |= {"BIN": str(self.python.parent), "PIP_CONFIG_FILE": os.devnull}
        environment |= {"PIP_NO_INDEX": "1", "PIP_NO_COMPILE": "1"}
        environment |= {"PIP_FIND_LINKS": str(self.folder / "wheels")}
        return subprocess.run(
            [self.folder / "scripts/install", name],
            env=environment | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def installed(self) -> set[str]:
        return {path.stem for path in self.folder.glob("env/lib/python*/site-packages/*.py")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_file_that_is_not_the_recorded_one_is_not_installed(place: Place) -> None:
    wheel = place.wheel("net", "1.0")
    place.lock("setup", wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("net_attack.py", "")
    done = place.install("setup")
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert place.installed == {"tool"}


def test_a_package_without_a_hash_is_not_installed(place: Place) -> None:
    (place.folder / "locks/build.txt").write_text("tool==1.0\n")
    done = place.install("setup")
    assert done.returncode != 0
    assert "Hashes are required" in done.stderr
    assert place.installed == set()


@pytest.fixture
def builds(place: Place) -> Place:
    """PyTorch on two indexes: PyPI's build needs a library, the CPU build does not."""
    place.lock("setup", place.wheel("net", "1.0"))
    place.lock(
        "setup-cuda", place.wheel("torch", "2.0", "cublas==1.0"), place.wheel("cublas", "1.0")
    )
    place.lock("setup-cpu", place.wheel("torch", "2.0+cpu"))
    return place


def test_the_cpu_build_of_torch_is_installed_if_an_index_has_it(builds: Place) -> None:
    done = builds.install("setup")
    assert done.returncode == 0, done.stderr
    assert builds.installed == {"tool", "net", "torch"}


def test_else_pypi_s_build_is_installed_with_its_libraries(builds: Place) -> None:
    (builds.folder / "wheels/torch-2.0+cpu-py3-none-any.whl").unlink()
    done = builds.install("setup")
    assert (done.returncode, done.stderr) == (0, "")
    assert builds.installed == {"tool", "net", "torch", "cublas"}


def test_a_cpu_build_that_is_not_the_recorded_one_is_not_installed(builds: Place) -> None:
    builds.wheel("torch", "2.0+cpu", "attack")
    done = builds.install("setup")
    assert done.returncode != 0
    # Once: PyPI's build is not tried in its place.
    assert done.stderr.count("THESE PACKAGES DO NOT MATCH THE HASHES") == 1
    assert builds.installed == {"tool", "net"}
