"""Files come whole, checked and once, whatever the network does."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data_server import Server
from toolkit.core.errors import IntegrityError, ToolkitError, UnavailableError
from toolkit.core.progress import Progress, Silent
from toolkit.data.downloads import ATTEMPTS, RemoteFile, fetch

CONTENT = os.urandom(500_000)


@pytest.fixture
def file(server: Server) -> RemoteFile:
    return server.publish("rows.bin", CONTENT)


class Heard(Progress):
    def __init__(self) -> None:
        self.parts: list[tuple[str, int, int]] = []
        self.notes: list[str] = []

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.parts.append((task, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)


def left_behind(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*"))


def test_the_file_comes_whole_and_alone(file: RemoteFile, tmp_path: Path):
    path = fetch(file, tmp_path / "new" / "folder", Silent())
    assert path.read_bytes() == CONTENT
    assert left_behind(path.parent) == ["rows.bin"]


def test_the_second_time_asks_nobody(file: RemoteFile, server: Server, tmp_path: Path):
    for _ in range(2):
        fetch(file, tmp_path, Silent())
    assert server.asked == ["/rows.bin"]


def test_progress_is_told_in_parts_up_to_the_end(file: RemoteFile, tmp_path: Path):
    heard = Heard()
    fetch(file, tmp_path, heard)
    done = [part for _, part, _ in heard.parts]
    assert done == sorted(set(done))
    assert heard.parts[-1] == ("download rows.bin", 20, 20)
    assert len(done) > 3


def test_a_cut_download_is_tried_again(file: RemoteFile, server: Server, tmp_path: Path):
    server.faults = ["cut", 503]
    heard = Heard()
    assert fetch(file, tmp_path, heard).read_bytes() == CONTENT
    assert len(server.asked) == 3
    assert len(heard.notes) == 2
    assert "503" in heard.notes[1]


@pytest.mark.parametrize("fault", ["cut", 500])
def test_what_fails_every_time_leaves_nothing(
    fault: str | int, file: RemoteFile, server: Server, tmp_path: Path
):
    server.faults = [fault] * ATTEMPTS
    with pytest.raises(UnavailableError) as caught:
        fetch(file, tmp_path, Silent())
    assert len(server.asked) == ATTEMPTS
    assert left_behind(tmp_path) == []
    assert file.url in caught.value.hint
    assert fetch(file, tmp_path, Silent()).read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_asked_for_once(file: RemoteFile, server: Server, tmp_path):
    server.faults = [404]
    with pytest.raises(UnavailableError, match="404"):
        fetch(file, tmp_path, Silent())
    assert len(server.asked) == 1


def test_no_network_says_which_file_to_put_where(tmp_path: Path, server: Server):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    file = RemoteFile(name="rows.bin", url=f"http://127.0.0.1:{port}/x", digest="md5:00")
    with pytest.raises(UnavailableError) as caught:
        fetch(file, tmp_path, Silent())
    for said in (file.url, str(tmp_path / "rows.bin"), "md5:00", "--data digits", "diabetes"):
        assert said in caught.value.hint


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "md5:" + "0" * 32])
def test_a_download_with_another_digest_is_refused(
    digest: str, file: RemoteFile, tmp_path: Path, server: Server
):
    with pytest.raises(IntegrityError, match=r"rows\.bin"):
        fetch(replace(file, digest=digest), tmp_path, Silent())
    assert left_behind(tmp_path) == []


def test_a_file_put_there_by_hand_is_used(file: RemoteFile, server: Server, tmp_path: Path):
    (tmp_path / "rows.bin").write_bytes(CONTENT)
    assert fetch(file, tmp_path, Silent()).read_bytes() == CONTENT
    assert server.asked == []


def test_a_wrong_file_put_there_by_hand_is_refused_and_kept(
    file: RemoteFile, server: Server, tmp_path: Path
):
    (tmp_path / "rows.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(IntegrityError, match="499999 bytes"):
        fetch(file, tmp_path, Silent())
    assert (tmp_path / "rows.bin").read_bytes() == CONTENT[:-1]
    assert server.asked == []


def test_a_mirror_has_the_file_under_its_name_and_digest(
    file: RemoteFile, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOOLKIT_DATA_MIRROR", f"{server.url}/mirror/")
    elsewhere = replace(file, url="http://127.0.0.1:1/unused")
    assert fetch(elsewhere, tmp_path / "a", Silent()).read_bytes() == CONTENT
    assert server.asked == ["/mirror/rows.bin"]
    with pytest.raises(IntegrityError):
        fetch(replace(file, digest="sha256:" + "0" * 64), tmp_path / "b", Silent())


def test_a_mirror_that_is_no_address_is_named(
    file: RemoteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOOLKIT_DATA_MIRROR", "nowhere")
    with pytest.raises(UnavailableError, match=r"nowhere/rows\.bin"):
        fetch(file, tmp_path, Silent())


def test_the_variable_names_the_folder_unless_told(
    file: RemoteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOOLKIT_DATA_DIR", str(tmp_path / "named"))
    assert fetch(file, None, Silent()) == tmp_path / "named" / "rows.bin"
    assert fetch(file, tmp_path / "told", Silent()) == tmp_path / "told" / "rows.bin"


def test_else_it_is_the_user_s_cache(
    file: RemoteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TOOLKIT_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch(file, None, Silent()) == tmp_path / "inference-toolkit" / "data" / "rows.bin"


def test_a_folder_that_cannot_be_made_is_named(file: RemoteFile, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ToolkitError, match="taken"):
        fetch(file, tmp_path / "taken", Silent())
