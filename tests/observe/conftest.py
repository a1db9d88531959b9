"""A server to be watched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched_server import Watching


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this user's sockets, with a short path; empty at first."""
    with tempfile.TemporaryDirectory(prefix="hw-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setattr(
            "hesper.observe.places._candidates", lambda: [Path(folder) / "hesper-status"]
        )
        yield Path(folder)


@pytest.fixture
def watching(runtime: Path) -> Iterator[Watching]:
    watching = Watching(runtime)
    with watching.status:
        yield watching
