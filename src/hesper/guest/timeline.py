"""Fences of a queue's timeline, retired in the order in which they were asked for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from hesper.guest.vk import VK_SUCCESS, VK_TIMEOUT, VK_TRUE
from hesper.kernel.engine import ProcTable, Scratch
from hesper.log import get_logger

MAX_TIMELINES = 64
"""Timelines of a context: the CPU's (0) and 63 for queues."""

WAIT_SLICE = 250_000_000
"""Nanoseconds of one vkWaitForFences, so that a waiter notices that it has to stop."""

TRY_NS = 30_000
"""Nanoseconds that whoever asks for a fence waits for it before the waiter is called."""

log = get_logger(__name__)


class Timeline:
    """Tells when a queue is through with what it had to do.

    Life: construct, `fence` any number of times, `stop`.  One thread waits, from the first fence
    on; it sleeps in the driver, or on a condition when there is nothing to wait for.
    """

    def __init__(
        self, ring_idx: int, table: ProcTable, device: int, submit: Callable[[int], int]
    ) -> None:
        """Serve one queue.

        table, device: of the queue's VkDevice (a host handle).
        submit: submits nothing but a fence (a host handle) to the queue; returns the VkResult.
        """
        self.ring_idx = ring_idx
        self._table = table
        self._device = device
        self._submit = submit
        self._scratch = Scratch()
        self._info = self._scratch.new("VkFenceCreateInfo")
        self._created = self._scratch.array("VkFence", 1)
        self._awaited = self._scratch.array("VkFence", 1)
        self._tried = self._scratch.array("VkFence", 1)
        self._reset = self._scratch.array("VkFence", 1)
        self._condition = threading.Condition()
        self._pending: deque[tuple[int, Callable[[], None]]] = deque()
        self._free: list[int] = []
        self._deadline: float | None = None
        self._is_broken = False
        self._thread: threading.Thread | None = None

    def fence(self, retired: Callable[[], None]) -> None:
        """Call `retired`, here or in the waiter's thread, once the queue has done its work so far.

        A queue that has lost its device, or cannot take a fence, counts as done; so does one
        whose timeline has been stopped.
        """
        with self._condition:
            if self._deadline is None:
                fence = self._submitted_fence()
                if fence and not self._pending and self._is_soon_signalled(fence):
                    self._free.append(fence)
                    _call(retired)
                    return
                self._pending.append((fence, retired))
                self._condition.notify()
                if self._thread is None:
                    name = f"hesper-fence-{self.ring_idx}"
                    self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                    self._thread.start()
                return
        _call(retired)

    def _is_soon_signalled(self, fence: int) -> bool:
        """Wait a little for `fence`: most submissions are short, and a switch of threads is not."""
        self._tried[0] = fence
        arguments = (self._device, 1, self._tried, VK_TRUE, TRY_NS)
        return self._table.call("vkWaitForFences", *arguments) == VK_SUCCESS

    def _submitted_fence(self) -> int:
        """A fence that the queue will signal; 0 when it takes none."""
        fence = self._take_fence()
        result = self._submit(fence) if fence else VK_SUCCESS
        if result != VK_SUCCESS:
            self._free.append(fence)
            fence = 0
        if not fence and not self._is_broken:
            self._is_broken = True
            log.warning("queue takes no fences", ring_idx=self.ring_idx, result=result)
        return fence

    def stop(self, timeout: float) -> bool:
        """Retire what is pending and end the waiter.

        After `timeout` seconds, fences that are still pending are retired all the same.
        Returns whether the queue was through by then; if not, the driver still has the fences.
        """
        with self._condition:
            self._deadline = time.monotonic() + timeout
            self._condition.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        is_idle = all(not fence for fence, _ in self._pending)
        while self._pending:
            _call(self._pending.popleft()[1])
        if is_idle:
            for fence in self._free:
                self._table.call("vkDestroyFence", self._device, fence, None)
            self._free.clear()
        return is_idle

    def _take_fence(self) -> int:
        """Return an unsignalled fence; 0 when the driver gives none."""
        if self._free:
            self._reset[0] = self._free.pop()
            result = self._table.call("vkResetFences", self._device, 1, self._reset)
            return self._reset[0] if result == VK_SUCCESS else 0
        result = self._table.call("vkCreateFence", self._device, self._info, None, self._created)
        if result != VK_SUCCESS:
            return 0
        return int(self._created[0])

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._pending and self._deadline is None:
                    self._condition.wait()
                if not self._pending:
                    return
                fence = self._pending[0][0]
            if fence and not self._wait(fence):
                if self._deadline is not None and time.monotonic() > self._deadline:
                    return
                continue
            self._retire_first()
            # Fences of one queue are signalled in order, so later ones may be through as well.
            while self._is_first_signalled():
                self._retire_first()

    def _wait(self, fence: int) -> bool:
        """Whether `fence` is through after waiting a little.  A lost device counts as through."""
        self._awaited[0] = fence
        arguments = (self._device, 1, self._awaited, VK_TRUE, WAIT_SLICE)
        return self._table.call("vkWaitForFences", *arguments) != VK_TIMEOUT

    def _is_first_signalled(self) -> bool:
        with self._condition:
            if not self._pending:
                return False
            fence = self._pending[0][0]
        return not fence or self._table.call("vkGetFenceStatus", self._device, fence) == VK_SUCCESS

    def _retire_first(self) -> None:
        with self._condition:
            fence, retired = self._pending.popleft()
            if fence:
                self._free.append(fence)
        _call(retired)


def _call(retired: Callable[[], None]) -> None:
    """Call a frontend's function; what it raises must not end the waiter."""
    try:
        retired()
    except Exception:
        log.exception("a fence's callback failed")
