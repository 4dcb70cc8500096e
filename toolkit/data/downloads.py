"""Download of data set files, which are verified and cached in a directory."""

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
PARTS = 20  # progress reports per download


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """File to download. `digest` is `sha256:<hex>` or `md5:<hex>`, whichever is published."""

    name: str
    url: str
    digest: str


def fetch(file: RemoteFile, directory: Path | None, progress: Progress) -> Path:
    """Return the path of the file, after downloading it if it is missing.

    The file is stored under its name in `directory`, by default in the directory TOOLKIT_DATA_DIR
    or else in the user's cache. It only appears there once it is complete and its digest was
    checked. If TOOLKIT_DATA_MIRROR is set, the file is downloaded from that URL followed by its
    name instead of from its `url`; the digest is the same. A download that is interrupted or gets a
    server error is tried again from the start, up to ATTEMPTS times in all.

    Raises UnavailableError, which says where to put the file, if it cannot be downloaded, and
    IntegrityError if the stored or downloaded file has another digest.
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
    """Failure of a download; `may_pass` is whether another attempt could succeed."""

    def __init__(self, reason: str, *, may_pass: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_pass = may_pass


def _download(file: RemoteFile, url: str, path: Path, progress: Progress) -> None:
    """Download the file to `path` via a temporary file next to it. Raises _Cut, IntegrityError."""
    pooch.get_logger().setLevel(logging.WARNING)  # progress is reported via `progress`
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
    except ValueError as error:  # raised by pooch if the digest is wrong
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
    """Downloader for pooch. Unlike pooch's own, it closes its connection on an error."""

    def __init__(self, task: str, progress: Progress) -> None:
        self._task = task
        self._progress = progress

    def __call__(self, url: str, output: str, _: object) -> None:
        headers = {"Accept-Encoding": "identity"}  # archives are compressed already
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
