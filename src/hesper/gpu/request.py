"""One request of the driver, its answer, and an answer that comes later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hesper.gpu.wire import HEADER, ControlHeader, HeaderFlag, Response

if TYPE_CHECKING:
    from hesper.gpu.transport import QueueElement

# Plain numbers: every request asks for them, and operations on flags make objects.
_FENCE = int(HeaderFlag.FENCE)
_RING_IDX = int(HeaderFlag.INFO_RING_IDX)

NOTHING = memoryview(b"")
"""The body of a request that has been read."""

Key: TypeAlias = int
"""Names a thing whose commands must run in order; made by the functions below."""


def resource_key(resource_id: int) -> Key:
    """Name a resource."""
    return resource_id


def context_key(ctx_id: int) -> Key:
    """Name a context."""
    return 1 << 32 | ctx_id


def scanout_key(scanout_id: int) -> Key:
    """Name what a scanout shows."""
    return 2 << 32 | scanout_id


class Answer(NamedTuple):
    """What the device says: the type, and what follows the header."""

    type: Response
    payload: bytes = b""


OK = Answer(Response.OK_NODATA)


class GpuError(Exception):
    """A request that the device refuses, with the error that the specification names for it."""

    def __init__(self, response: Response, reason: str) -> None:
        """`reason`: one line for the log; the driver sees `response`."""
        super().__init__(reason)
        self.response = response


Outcome: TypeAlias = Answer | GpuError


class Pending:
    """An outcome that is not there yet.  For the loop's thread."""

    __slots__ = ("_outcome", "_then", "in_order")

    def __init__(self, *, in_order: bool = False) -> None:
        """Make an unfinished one."""
        self.in_order = in_order
        """Whether the context's worker has been told already, which does things in order: later
        commands of the context need not wait."""
        self._outcome: Outcome | None = None
        self._then: Callable[[Outcome], None] | None = None

    def then(self, callback: Callable[[Outcome], None]) -> None:
        """Call `callback` with the outcome, at once if it is there.  To be called once."""
        if self._outcome is not None:
            callback(self._outcome)
        else:
            self._then = callback

    def finish(self, outcome: Outcome = OK) -> None:
        """Give the outcome; only the first counts."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        if self._then is not None:
            self._then(outcome)


class Request:
    """A request, copied out of guest memory, and where its answer goes."""

    __slots__ = ("_element", "body", "header", "keys")

    def __init__(self, element: QueueElement) -> None:
        """Read it; a request shorter than its header has type 0, which is no command."""
        data = element.read()
        if len(data) < HEADER.size:
            data = bytes(HEADER.size)
        self._element = element
        self.header = ControlHeader(*HEADER.unpack_from(data))
        self.body = memoryview(data)[HEADER.size :]
        """What follows the header."""
        self.keys: tuple[Key, ...] = ()
        """What it must be ordered by."""

    @property
    def fenced(self) -> bool:
        """Whether the driver wants the answer when the work is done, not when it is taken up."""
        return bool(self.header.flags & _FENCE)

    @property
    def on_context_timeline(self) -> bool:
        """Whether the fence belongs to the timeline `ring_idx` of the context."""
        return bool(self.header.flags & _RING_IDX)

    def respond(self, answer: Answer) -> None:
        """Give the answer to the driver."""
        asked = self.header
        if self.fenced:
            flags = asked.flags & (_FENCE | _RING_IDX)
            header = HEADER.pack(answer.type, flags, asked.fence_id, asked.ctx_id, asked.ring_idx)
        else:
            header = HEADER.pack(answer.type, 0, 0, 0, 0)
        self._element.respond(header + answer.payload)
