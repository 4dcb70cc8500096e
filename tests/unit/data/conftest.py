"""A server for the archives, and downloads that do not wait between attempts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data_server import Server, serving
from toolkit.data import downloads


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        yield running
