"""What is said over a server's status socket.

Messages are those of `portable.send_message`: one JSON object each, with its kind.  Who asks is the
server's own user, and still gets no more than an answer: what is longer, or no question, ends the
connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from hesper.figures import MOST_WATCHED

if TYPE_CHECKING:
    from hesper.figures import ContextFigures

MOST_ASKED = 1024
"""Bytes of a question."""
MOST_FLUSHES = 10_000
"""Frames of screens in one message of a trace."""

Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=MOST_WATCHED)]


class AskReport(msgspec.Struct, tag="report", tag_field="ask", forbid_unknown_fields=True):
    """What does everybody do?  Answered by `Report`."""

    watch: Seconds = 0.0
    """Seconds for which queues are timed from now on."""


class AskEnd(msgspec.Struct, tag="end", tag_field="ask", forbid_unknown_fields=True):
    """End a client.  Answered by `Ended`."""

    context: int


class AskTrace(msgspec.Struct, tag="trace", tag_field="ask", forbid_unknown_fields=True):
    """Trace for so long.  Answered by `Began`, then by what comes, and by `Over` at its end."""

    seconds: Annotated[float, msgspec.Meta(gt=0.0, le=MOST_WATCHED)]


class AskSockets(msgspec.Struct, tag="sockets", tag_field="ask", forbid_unknown_fields=True):
    """May another server take clients?  Answered by `Sockets`; nothing changes yet."""


class AskRetire(msgspec.Struct, tag="retire", tag_field="ask", forbid_unknown_fields=True):
    """Take no more clients, and end after the last.  Answered by `Retired`."""

    kept: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=64)]
    """Places in `Sockets.sockets`: those another server has from now on; the others are removed."""


Question: TypeAlias = AskReport | AskEnd | AskTrace | AskSockets | AskRetire


class Client(msgspec.Struct, frozen=True):
    """One client, a program as a rule; see `figures.ContextFigures`."""

    context: int
    name: str
    process: int
    user: int
    seconds: float
    commands: int
    stream_bytes: int
    submissions: int
    busy_ns: int
    frames: int
    memory: int
    limit: int
    accounts: dict[str, int]
    held: dict[str, tuple[int, int]]
    doing: list[tuple[str, str]]
    gpu: int = 0
    kind: str = msgspec.field(default="", name="class")

    @classmethod
    def of(cls, figures: ContextFigures) -> Client:
        """The same, to be sent."""
        return msgspec.convert(figures._asdict() | _plain(figures), cls)


def _plain(figures: ContextFigures) -> dict[str, object]:
    return {
        "accounts": dict(figures.accounts),
        "held": dict(figures.held),
        "class": figures.kind,
    }


class Gpu(msgspec.Struct, frozen=True):
    """One of a server's GPUs; `Client.gpu` is its place."""

    driver: str
    device: str


class Screen(msgspec.Struct, frozen=True):
    """One monitor of a virtual machine."""

    screen: int
    """From 1."""
    frames: int
    """That the guest has finished."""
    width: int
    """Pixels; 0 while the guest shows nothing."""
    height: int


class Report(msgspec.Struct, frozen=True, tag="report", tag_field="is"):
    """What everybody does."""

    kind: str
    """Which command the server is: `serve`, `run`, `gpu`, `vm`."""
    sockets: list[str]
    """Where its clients connect."""
    driver: str
    device: str
    process: int
    """Its own."""
    time: float
    """Of this report; seconds of the monotonic clock."""
    clients: list[Client]
    screens: list[Screen]
    gpus: list[Gpu] = []
    """What clients are served with, where there are several; the first are `driver`, `device`."""
    retired: bool = False
    """Whether another server takes clients, and this one ends after its last."""


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="is"):
    """Whether there was such a client, and its name."""

    name: str | None


class Began(msgspec.Struct, frozen=True, tag="began", tag_field="is"):
    """The trace has begun."""

    time: int
    """ns of the monotonic clock, as all that follows."""


class Traced(msgspec.Struct, frozen=True, tag="traced", tag_field="is"):
    """A client is traced; into shared memory, whose descriptor comes along."""

    context: int


class Flushed(msgspec.Struct, frozen=True, tag="flushed", tag_field="is"):
    """Screens have shown frames: number of the screen, and when (ns)."""

    frames: list[tuple[int, int]]


class Over(msgspec.Struct, frozen=True, tag="over", tag_field="is"):
    """The trace has ended; who was traced: context, name, process."""

    clients: list[tuple[int, str, int]]


class Socket(msgspec.Struct, frozen=True):
    """A listening socket; its descriptor comes along.  See `isolation.listen.Handed`."""

    path: str
    kind: str
    identity: tuple[int, int] | None


class Sockets(msgspec.Struct, frozen=True, tag="sockets", tag_field="is"):
    """Where clients connect, with descriptors, and how the server was started."""

    sockets: list[Socket]
    arguments: list[str]
    """After `hesper`."""
    folder: str
    """Its working folder, from which paths go out."""


class Retired(msgspec.Struct, frozen=True, tag="retired", tag_field="is"):
    """It takes no more clients."""

    clients: int
    """No client's number is above."""


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="is"):
    """What was asked for cannot be."""

    why: str


Answer: TypeAlias = Report | Ended | Began | Traced | Flushed | Over | Sockets | Retired | Refused
