"""The event loop of a device: descriptors, calls from other threads, one thread."""

from __future__ import annotations

import collections
import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass

from hesper.portable import WakePipe, selector

Callback = Callable[[], object]


@dataclass(slots=True, eq=False)
class _Watch:
    """What to call for one descriptor."""

    reader: Callback
    writer: Callback | None = None


class EventLoop:
    """Calls back when a descriptor is readable or writable.

    All callbacks run on the thread in `run`, one after the other, so that what they share needs no
    lock.  Only `call` and `stop` may be called from other threads.
    """

    def __init__(self) -> None:
        """Make an empty loop."""
        self._selector = selector()
        self._wake = WakePipe()
        self._calls: collections.deque[Callback] = collections.deque()
        self._after: list[Callback] = []
        self._due: list[tuple[float, int, Callback]] = []
        """A heap: when, a number like no other, what."""
        self._numbers = itertools.count()
        self._stopping = False
        self.add_reader(self._wake.read_fd, self._wake.drain)

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call `callback` whenever `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, _Watch(callback))

    def set_writer(self, fd: int, callback: Callback | None) -> None:
        """Call `callback` whenever `fd`, which has a reader, is writable; None: no more."""
        watch: _Watch = self._selector.get_key(fd).data
        if (watch.writer is None) != (callback is None):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if callback else 0)
            self._selector.modify(fd, events, watch)
        watch.writer = callback

    def remove(self, fd: int) -> None:
        """Forget `fd`; must come before it is closed."""
        self._selector.unregister(fd)

    def after_each(self, callback: Callback) -> None:
        """Call `callback` at the end of every round, to do once what many callbacks ask for."""
        self._after.append(callback)

    def remove_after_each(self, callback: Callback) -> None:
        """Stop doing so."""
        self._after.remove(callback)

    def call(self, callback: Callback) -> None:
        """Run `callback` on the loop's thread, in its next round.  From any thread."""
        self._calls.append(callback)
        self._wake.wake()

    def call_after(self, seconds: float, callback: Callback) -> None:
        """Run `callback` once, after so many seconds or somewhat more."""
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), callback))

    def stop(self) -> None:
        """Make `run` return.  From any thread, and from a signal handler."""
        self._stopping = True
        self._wake.wake()

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            self.run_once()

    def run_once(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds (None: for ever) for something to do, and do it."""
        if self._due:
            left = max(self._due[0][0] - time.monotonic(), 0.0)
            timeout = left if timeout is None else min(timeout, left)
        for key, events in self._selector.select(timeout):
            watch: _Watch = key.data
            if events & selectors.EVENT_READ and self._watches(key.fd, watch):
                watch.reader()
            if events & selectors.EVENT_WRITE and self._watches(key.fd, watch) and watch.writer:
                watch.writer()
        for _ in range(len(self._calls)):
            self._calls.popleft()()
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        for callback in tuple(self._after):
            callback()

    def _watches(self, fd: int, watch: _Watch) -> bool:
        """Whether `watch` is still on.

        An earlier callback of this round may have taken the descriptor away, and another one with
        the same number may be there by now.
        """
        key = self._selector.get_map().get(fd)
        return key is not None and key.data is watch

    def close(self) -> None:
        """Release its descriptors."""
        self._selector.close()
        self._wake.close()
