"""`hesper serve` says that it is ready when it can be watched, too."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hesper.api.vtest import VtestOptions
from hesper.cli import serve


class NobodysServer:
    """Stands for a `VtestServer`, and says when its first worker is ready."""

    sockets = ("/nowhere/vtest",)

    def __init__(self, *_: Any, on_ready: Callable[[], None], **__: Any) -> None:
        self.start = on_ready

    def stop(self, **_: bool) -> None:
        """Nobody is served."""

    def wait(self) -> None:
        """It has not failed."""


class Watch:
    """Stands for `WatchOptions`."""

    def __init__(self) -> None:
        self.is_watching = False

    @contextlib.contextmanager
    def watched(self, *_: Any) -> Iterator[None]:
        self.is_watching = True
        yield


def test_a_server_that_is_ready_can_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `hesper upgrade`, which asks it for its sockets, finds no server."""
    monkeypatch.setattr(serve, "VtestServer", NobodysServer)
    watch: Any = Watch()
    seen: list[bool] = []

    def ready(_: object) -> None:
        seen.append(watch.is_watching)
        os.kill(os.getpid(), signal.SIGTERM)

    options = VtestOptions(sandbox="off")
    serve._serve(["/nowhere/vtest"], options, None, watch, ready, lambda: None)  # noqa: SLF001
    assert seen == [True]
