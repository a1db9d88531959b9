"""All scanouts of a display over RFB, whatever the viewers are connected by."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from hesper.display.clipboard import Clipboard
from hesper.display.rfb.feed import Feed
from hesper.display.rfb.handshake import Access, handshake
from hesper.display.rfb.video import MAX_STREAMS, Streams
from hesper.display.rfb.viewer import Viewer
from hesper.display.rfb.wire import RfbError
from hesper.log import Logger, get_logger

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.display.rfb.channel import Channel
    from hesper.display.scanout import Display

log = get_logger(__name__)

HANDSHAKE_SECONDS = 120.0
"""Long enough for somebody to look up a password."""
MAX_VIEWERS = 64
"""Of those that may look; `access.listener` bounds those that have yet to show it."""
MAX_THREADS = 4


class RfbService:
    """Serves viewers of a display.  An async context manager; used on one event loop."""

    def __init__(self, display: Display, frames_per_second: float = 60.0) -> None:
        """Show each scanout at most `frames_per_second` times a second.

        Raises `ValueError` for a rate that is not positive.
        """
        if frames_per_second <= 0:
            message = f"{frames_per_second} frames per second: must be more than 0"
            raise ValueError(message)
        self.display = display
        self.clipboard = Clipboard()
        """What viewers and guest copy; on this event loop."""
        self.feeds: list[Feed] = []
        self._rate = frames_per_second
        self._viewers = 0
        self._executor: ThreadPoolExecutor | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Begin to take pictures."""
        # Those that wait for an encoder take no processor.
        threads = min(MAX_THREADS, os.cpu_count() or 1) + MAX_STREAMS
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="display")
        self.feeds = [Feed(scanout, self._executor, self._rate) for scanout in self.display]
        self._streams = Streams(self._executor)
        self._tasks = [asyncio.create_task(feed.run()) for feed in self.feeds]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop taking pictures; viewers have to have gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._executor is not None:
            self._streams.close_all()
            self._executor.shutdown()

    async def serve(
        self,
        index: int,
        channel: Channel,
        access: Access,
        peer: str,
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve one viewer of scanout `index` until it leaves, then close `channel`.

        access: what the viewer has to show; `admit` is called once it has.
        peer: the address it comes from.
        A viewer that errs is logged, and nothing is raised; a mistake of ours is logged, too, and
        raised: it should cost no more than this viewer.
        """
        viewer_log = log.of(peer).bind(viewer=channel.name, scanout=index)
        try:
            self._check_room()
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                channel = await handshake(channel, access, peer)
            self._check_room()
            admit()
            await self._show(index, channel, viewer_log)
        except (EOFError, ConnectionError):
            viewer_log.info("viewer disconnected")
        except (RfbError, OSError, TimeoutError) as error:
            viewer_log.warning("viewer dropped", reason=str(error) or type(error).__name__)
        except Exception:
            viewer_log.exception("viewer lost")
            raise
        finally:
            await channel.close()

    def _check_room(self) -> None:
        if self._viewers >= MAX_VIEWERS:
            raise RfbError(f"there are {MAX_VIEWERS} viewers already")

    async def _show(self, index: int, channel: Channel, viewer_log: Logger) -> None:
        self._viewers += 1
        try:
            viewer_log.info("viewer connected")
            await Viewer(channel, self.feeds[index], self.clipboard, self._streams).run()
        finally:
            self._viewers -= 1
