"""What one client has done and holds, as its worker says: a guest may have taken that over.

So nothing of it is more than numbers that have bounds, and words that are known or short.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Account = Literal["memory", "spare", "decoded", "rings", "objects", "recorded"]
"""What bytes of a context's memory limit are taken for, see `kernel.ledger`."""
Held = Literal["objects", "devices", "threads", "descriptors", "fences"]
"""What else is counted."""
Stage = Literal["asleep", "wait", "decode", "driver", "reply", "handler"]
"""What a stream of commands may be doing, see `kernel.watch`."""
CommandName = Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[A-Za-z0-9]*\Z")]

MOST_STREAMS = 9
"""That are looked at: the socket's, and eight rings."""
MOST_WATCHED = 300.0
"""Seconds for which queues are timed after a question, at most."""


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker answers; all of it since the context's start."""

    commands: Count = 0
    """Vulkan commands."""
    stream_bytes: Count = 0
    """Bytes of command stream."""
    memory: Count = 0
    """Bytes of device and shared memory that it holds now."""
    limit: Count = 0
    """Bytes of memory that it may have."""
    accounts: dict[Account, Count] = {}
    """Bytes that are taken of that limit."""
    held: dict[Held, tuple[Count, Count]] = {}
    """How many things there are, and how many may be."""
    submissions: Count = 0
    """Calls of its queues, such as vkQueueSubmit."""
    busy_ns: Count = 0
    """How long its queues have worked while somebody watched, see `kernel.watch.Watch.queues`."""
    frames: Count = 0
    """Images of swapchains that it has got to draw the next frame to."""
    doing: Annotated[list[tuple[Stage, CommandName]], msgspec.Meta(max_length=MOST_STREAMS)] = []
    """What its streams were doing at that moment: the socket's, then rings'."""


class ContextFigures(NamedTuple):
    """What one client has done so far, and what it holds."""

    context: int
    """A number that no other of the server's has or had."""
    name: str
    """What it calls itself: a program's name, as a rule."""
    commands: int
    """Vulkan commands since its start."""
    stream_bytes: int
    """Bytes of command stream since its start."""
    memory: int
    """Bytes of device and shared memory it holds."""
    limit: int = 0
    """Bytes of memory that it may have (`Limits.memory`)."""
    accounts: Mapping[str, int] = MappingProxyType({})
    """Bytes that are taken of that limit, by what they are for, as `recorded`."""
    held: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """How many things there are, and how many may be, by their kinds, as `devices`."""
    submissions: int = 0
    """Calls of its queues since its start."""
    busy_ns: int = 0
    """ns for which its queues have worked while somebody watched."""
    frames: int = 0
    """Images of swapchains that it has got to draw the next frame to, since its start."""
    doing: tuple[tuple[str, str], ...] = ()
    """What its streams were doing: stage and command, the socket's first, then rings'."""
    seconds: float = 0.0
    """Since its start."""
    process: int = 0
    """Its process' id; 0 where this machine has none, as for a virtual machine's."""
    user: int = -1
    """Its user's id; -1 likewise."""
    gpu: int = 0
    """Number of the GPU that it is on, from 0; see `hesper.api.server.Served.gpus`."""
    kind: str = ""
    """Name of its class; empty where it is in none that somebody has made."""

    @classmethod
    def of(
        cls,
        context: int,
        name: str,
        said: Figures,
        *,
        seconds: float,
        process: int = 0,
        user: int = -1,
        gpu: int = 0,
        kind: str = "",
    ) -> ContextFigures:
        """What a worker has said, of the client that is known here."""
        return cls(
            context,
            name,
            said.commands,
            said.stream_bytes,
            said.memory,
            said.limit,
            dict[str, int](said.accounts.items()),
            dict[str, tuple[int, int]](said.held.items()),
            said.submissions,
            said.busy_ns,
            said.frames,
            tuple(said.doing),
            seconds,
            process,
            user,
            gpu,
            kind,
        )


def no_less(said: Figures, before: Figures) -> Figures:
    """`said`, with no counter below what it was `before`: a worker may say what it likes."""
    return msgspec.structs.replace(
        said,
        commands=max(said.commands, before.commands),
        stream_bytes=max(said.stream_bytes, before.stream_bytes),
        submissions=max(said.submissions, before.submissions),
        busy_ns=max(said.busy_ns, before.busy_ns),
        frames=max(said.frames, before.frames),
    )
