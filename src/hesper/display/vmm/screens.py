"""The screens on a display that the VMM has: an output, on a thread of its own.

The VMM takes pictures when it gets round to them, and nobody waits for it: after every frame it is
asked for the sizes of its windows, and the next frame is looked at when it has answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.display.geometry import Size
from hesper.display.vmm import wire
from hesper.display.vmm.link import Link, LinkClosedError, LinkError
from hesper.display.vmm.screen import Screen, message
from hesper.display.vmm.wire import DISPLAY_ONE, RESPONSE_HEADER_SIZE, Request
from hesper.event_loop import EventLoop
from hesper.log import get_logger

if TYPE_CHECKING:
    import socket

    from hesper.display.scanout import Display

FRAME_SECONDS = 1 / 60
"""Between two frames, at least."""
ASK_SECONDS = 1.0
"""In which the VMM has to say how large its windows are; the guest waits for that."""

JOIN_SECONDS = 5.0
"""That the thread has to end."""

_log = get_logger(__name__)


class VmmScreens:
    """Shows a display's scanouts at a socket of the VMM's, until either is closed."""

    def __init__(self, sock: socket.socket, display: Display) -> None:
        """Take over `sock`, of which the VMM has the other end, and start the thread.

        Raises `OSError`, with `sock` closed, where there can be no more of what that takes.
        """
        self._display = display
        try:
            self._loop = EventLoop()
        except OSError:
            sock.close()
            raise
        self._lock = threading.Lock()
        self._open = True
        """Whether the loop takes calls."""
        self._link = Link(sock, self._loop, self._gone)
        self._screens: list[Screen] = []
        self._sizes: dict[int, Size] = {}
        """Of the VMM's windows, by scanout, as it has said last."""
        self._unanswered = False
        """Whether the VMM has yet to take a frame."""
        self._next_frame = 0.0
        self._asking = True
        """Whether the VMM has yet to say something before it can be asked for sizes."""
        self._told: list[Callable[[], None]] = []
        """Who is to be told when it has."""
        self._told_next: list[Callable[[], None]] = []
        """Who has asked since it was asked, and needs a newer answer."""
        self._thread = threading.Thread(target=self._run, name="vmm-screens", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._link.close()
            self._loop.close()
            raise OSError(str(error)) from error

    def ask_sizes(self, done: Callable[[], None]) -> None:
        """Ask the VMM how large its windows are, which then are the sizes that are wanted.

        `done` is called once, on any thread: when it has answered, or when that takes too long.
        """
        if not self._call(lambda: self._ask(done)):
            done()

    def close(self) -> None:
        """Show nothing there any more.  From any thread; waits for nothing."""
        with self._lock:
            if self._open:
                self._loop.stop()

    @property
    def is_running(self) -> bool:
        """Whether its thread has yet to end."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait until it calls nobody any more, after `close`: a frame's time, if one is on."""
        self._thread.join(JOIN_SECONDS)

    def _call(self, callback: Callable[[], object]) -> bool:
        """Run `callback` on the thread; False when it has ended.  From any thread."""
        with self._lock:
            if self._open:
                self._loop.call(callback)
            return self._open

    def _run(self) -> None:
        try:
            self._link.ask(Request.GET_PROTOCOL_FEATURES, wire.U64.size, self._begin)
            self._loop.run()
        except Exception:
            # A mistake of ours; the guest and its other viewers go on.
            _log.exception("the VMM's display has failed")
        with self._lock:
            self._open = False
        for screen in self._screens:
            screen.close()
        self._link.close()
        # Also what was called and has not run.
        self._loop.run_once(0)
        for done in [*self._told, *self._told_next]:
            done()
        self._loop.close()

    def _gone(self, error: LinkError) -> None:
        if isinstance(error, LinkClosedError):
            _log.info("the VMM shows the screens no more")
        else:
            _log.error("the VMM's display is lost", reason=str(error))
        self.close()

    def _begin(self, _features: bytes) -> None:
        """Show what there is, with none of the protocol's features: none would be of use."""
        self._link.send([message(Request.SET_PROTOCOL_FEATURES, wire.U64.pack(0))])
        self._ask_again()
        self._screens = [Screen(scanout, self._wake) for scanout in self._display]
        _log.info("the VMM shows the screens", count=len(self._screens))

    # Frames.

    def _wake(self) -> None:
        self._call(self._look)

    def _look(self) -> None:
        """Send what is new, if the VMM has taken what was new before."""
        if self._unanswered or not any(screen.pending for screen in self._screens):
            return
        left = self._next_frame - time.monotonic()
        if left > 0:
            self._loop.call_after(left, self._look)
            return
        self._next_frame = time.monotonic() + FRAME_SECONDS
        messages = [
            pieces for screen in self._screens if screen.pending for pieces in screen.take()
        ]
        for pieces in messages:
            self._link.send(pieces)
        if messages:
            self._unanswered = True
            self._ask_display_info(self._taken)

    def _taken(self) -> None:
        self._unanswered = False
        self._look()

    # Sizes.

    def _ask(self, done: Callable[[], None]) -> None:
        if not self._open:
            done()
            return
        self._told_next.append(done)
        self._loop.call_after(ASK_SECONDS, lambda: self._give_up(done))
        if not self._asking:
            self._ask_again()

    def _ask_again(self) -> None:
        self._told, self._told_next = self._told_next, []
        self._asking = bool(self._told)
        if self._asking:
            self._ask_display_info(self._answered)

    def _answered(self) -> None:
        for done in self._told:
            done()
        self._ask_again()

    def _give_up(self, done: Callable[[], None]) -> None:
        for waiting in (self._told, self._told_next):
            if done in waiting:
                waiting.remove(done)
                done()

    def _ask_display_info(self, then: Callable[[], None]) -> None:
        def answered(info: bytes) -> None:
            self._note_sizes(info)
            then()

        self._link.ask(Request.GET_DISPLAY_INFO, wire.DISPLAY_INFO_SIZE, answered)

    def _note_sizes(self, info: bytes) -> None:
        """Want what the VMM wants; as long as it says nothing else, another viewer may."""
        for scanout in self._display:
            place = RESPONSE_HEADER_SIZE + scanout.index * DISPLAY_ONE.size
            _x, _y, width, height, enabled, _flags = DISPLAY_ONE.unpack_from(info, place)
            size = Size(width, height)
            if not enabled or size == self._sizes.get(scanout.index):
                continue
            self._sizes[scanout.index] = size
            try:
                scanout.request_size(size)
            except ValueError as error:
                _log.warning("the VMM's window is of no screen's size", reason=str(error))
