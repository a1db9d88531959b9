"""Takes pictures of one scanout for all who view it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from hesper.display.frame import Capture
from hesper.display.rfb.pace import Latencies
from hesper.display.rfb.wire import RfbError
from hesper.display.surface import check_size
from hesper.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from hesper.display.frame import Picture
    from hesper.display.geometry import Size
    from hesper.display.rfb.viewer import Viewer
    from hesper.display.scanout import Scanout

log = get_logger(__name__)

RESIZE_SECONDS = 0.25
"""From one size that the guest is asked for to the next; viewers send many while a window grows."""


class Feed:
    """Reads a scanout when it has news and a viewer is ready for them, and not more often.

    One picture serves all viewers.  Each viewer keeps what it has not been sent yet, so a slow one
    gets fewer pictures and holds nobody up.
    """

    def __init__(self, scanout: Scanout, executor: Executor, frames_per_second: float) -> None:
        """Show `scanout`; `run` does the work, pictures are taken in `executor`."""
        self.scanout = scanout
        self.executor = executor
        self.name = f"Hesper, screen {scanout.index + 1}"
        self.viewers: set[Viewer] = set()
        self.updates = 0
        """Framebuffer updates sent so far."""
        self.sent = 0
        """Bytes sent so far in updates."""
        self.latencies = Latencies()
        """From the guest's flush to its picture at a viewer."""
        self.interval = 1 / frames_per_second
        """Seconds from a picture to the next, at least."""
        self._joining: list[tuple[Viewer, asyncio.Future[Picture]]] = []
        self._asked = asyncio.Event()
        self._news = asyncio.Event()
        self._taking = False
        self._loop = asyncio.get_running_loop()
        self._capture = Capture(scanout, self._wake)
        self._wanted: Size | None = None
        self._resizing: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Take pictures until cancelled."""
        due = self._loop.time()
        try:
            while True:
                await self._asked.wait()
                await self._news.wait()
                await asyncio.sleep(due - self._loop.time())
                due = self._loop.time() + self.interval
                self._asked.clear()
                self._news.clear()
                self._taking = True
                try:
                    picture = await self._loop.run_in_executor(self.executor, self._capture.take)
                except Exception:
                    # Whatever a surface may raise: the guest goes on, and so do its viewers.
                    log.exception("scanout cannot be read", scanout=self.scanout.index)
                    self._refuse()
                    self._ask_for_viewers()
                    continue
                finally:
                    self._taking = False
                self._show(picture)
        finally:
            if self._resizing is not None:
                self._resizing.cancel()
            self._capture.close()
            self._refuse()

    @property
    def has_news(self) -> bool:
        """Whether the scanout has changed since the last picture that viewers got."""
        return self._taking or self._capture.pending

    async def join(self, viewer: Viewer) -> Picture:
        """Let `viewer` have every picture after the one that is returned.

        Raises `RfbError` when there is none to be had.
        """
        future: asyncio.Future[Picture] = self._loop.create_future()
        self._joining.append((viewer, future))
        self._asked.set()
        self._news.set()
        return await future

    def leave(self, viewer: Viewer) -> None:
        """Give `viewer` no further picture."""
        self.viewers.discard(viewer)

    def request_size(self, size: Size) -> None:
        """Pass on the size that a viewer wants; of many in a short time the first and the last.

        Raises `ValueError` for a size that no surface can have.
        """
        check_size(size)
        self._wanted = size
        if self._resizing is None:
            self._resize()

    def _resize(self) -> None:
        self._resizing = None
        if self._wanted is not None:
            self.scanout.request_size(self._wanted)
            self._wanted = None
            self._resizing = self._loop.call_later(RESIZE_SECONDS, self._resize)

    def ask(self) -> None:
        """Say that a viewer is ready for news."""
        self._asked.set()

    def count_update(self, parts: Sequence[bytes]) -> None:
        """Note an update that was sent."""
        self.updates += 1
        self.sent += sum(map(len, parts))

    def _show(self, picture: Picture) -> None:
        for viewer in self.viewers:
            viewer.show(picture)
        joining, self._joining = self._joining, []
        for viewer, future in joining:
            if not future.done():
                self.viewers.add(viewer)
                future.set_result(picture)
        self._ask_for_viewers()

    def _ask_for_viewers(self) -> None:
        """Take another picture when there is news, if a viewer waits for it: it asks once."""
        if any(viewer.hungry for viewer in self.viewers):
            self._asked.set()

    def _refuse(self) -> None:
        joining, self._joining = self._joining, []
        for _, future in joining:
            if not future.done():
                future.set_exception(RfbError("the guest's picture cannot be read"))

    def _wake(self) -> None:
        # A device may flush once more while this process shuts its loop down.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.set)
