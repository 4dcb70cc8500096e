"""Files that data sets are made of: fetched once, checked, and kept in a folder."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

import platformdirs
import pooch
import requests

from toolkit.core.errors import IntegrityError, UnavailableError
from toolkit.core.files import wrapping_os_errors
from toolkit.core.progress import Progress

DIRECTORY_VARIABLE = "TOOLKIT_DATA_DIR"
MIRROR_VARIABLE = "TOOLKIT_DATA_MIRROR"
ATTEMPTS = 3
PAUSE_S = 1.0
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 16
PARTS = 20  # of a download that are told


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on the network. `digest` is `sha256:<hex>` or `md5:<hex>`, whichever is published."""

    name: str
    url: str
    digest: str


def fetch(file: RemoteFile, directory: Path | None, progress: Progress) -> Path:
    """Where the file lies, downloaded first when it is not there.

    It lies under its own name in `directory`, else in the folder that TOOLKIT_DATA_DIR names, else
    in the user's cache, and appears there whole, after its digest was checked. With
    TOOLKIT_DATA_MIRROR set, it comes from that address and its own name instead of its url; the
    digest is the same. A download that is cut, or meets an error of the server, is tried again from
    the start, ATTEMPTS times in all.

    Raises UnavailableError, with what to put where, when it cannot be had; IntegrityError for a
    file, here or from the network, with another digest.
    """
    folder = directory or _default_directory()
    path = folder / file.name
    with wrapping_os_errors(f"read {path}"):
        if path.exists():
            _check(file, path)
            return path
    mirror = os.environ.get(MIRROR_VARIABLE)
    url = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url
    left = ATTEMPTS
    while True:
        try:
            with wrapping_os_errors(f"write {path}"):
                _download(file, url, path, progress)
            return path
        except _Cut as cut:
            left -= 1
            if not left or not cut.may_pass:
                raise _unavailable(file, url, path, cut.reason) from cut
            progress.note(f"download of {file.name} failed, trying again: {cut.reason}")
            time.sleep(PAUSE_S)


class _Cut(Exception):
    """A download that ended early; `may_pass` when another attempt could go better."""

    def __init__(self, reason: str, *, may_pass: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_pass = may_pass


def _download(file: RemoteFile, url: str, path: Path, progress: Progress) -> None:
    """Brings the file to `path`, by a temporary name beside it. Raises _Cut and IntegrityError."""
    pooch.get_logger().setLevel(logging.WARNING)  # we have a voice of our own
    try:
        pooch.retrieve(
            url,
            file.digest,
            fname=path.name,
            path=path.parent,
            downloader=_Downloader(f"download {file.name}", progress),
        )
    except requests.HTTPError as error:
        is_theirs = error.response is not None and error.response.status_code >= 500
        raise _Cut(str(error), may_pass=is_theirs) from error
    except requests.RequestException as error:
        passing = (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        )
        raise _Cut(
            f"{type(error).__name__}: {error}", may_pass=isinstance(error, passing)
        ) from error
    except ValueError as error:  # what pooch raises for another digest
        raise IntegrityError(
            f"Downloaded {url}: {error}",
            hint=f"The file at that address is not {file.name} as it was published. Get it "
            f"elsewhere and put it at {path}, or set {MIRROR_VARIABLE} to an address that has it.",
        ) from error


def _check(file: RemoteFile, path: Path) -> None:
    algorithm, _, expected = file.digest.partition(":")
    got = pooch.file_hash(str(path), alg=algorithm)
    if got != expected:
        raise IntegrityError(
            f"Checked {path}: it has {algorithm} {got} ({path.stat().st_size} bytes), expected "
            f"{expected}.",
            hint=f"Remove it to have it downloaded again from {file.url}.",
        )


def _unavailable(file: RemoteFile, url: str, path: Path, reason: str) -> UnavailableError:
    return UnavailableError(
        f"Could not download {url}: {reason}.",
        hint=f"Get {file.url} ({file.digest}) on a machine with a network and put it at {path} "
        f"(--data-dir or {DIRECTORY_VARIABLE} names another folder), or take a data set that needs "
        "no network: --data digits for classes, --data diabetes for values.",
    )


def _default_directory() -> Path:
    named = os.environ.get(DIRECTORY_VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("inference-toolkit") / "data"


@final
class _Downloader:
    """What brings a file for pooch. Unlike pooch's own, it closes its connection on an error."""

    def __init__(self, task: str, progress: Progress) -> None:
        self._task = task
        self._progress = progress

    def __call__(self, url: str, output: str, _: object) -> None:
        headers = {"Accept-Encoding": "identity"}  # an archive is compressed already
        with requests.get(url, stream=True, timeout=TIMEOUT_S, headers=headers) as answer:
            answer.raise_for_status()
            total = int(answer.headers.get("Content-Length", 0))
            done = told = 0
            with Path(output).open("wb") as stream:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    stream.write(chunk)
                    done += len(chunk)
                    part = done * PARTS // total if total else 0
                    if part > told:
                        told = part
                        detail = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
                        self._progress.update(self._task, part, PARTS, detail)
