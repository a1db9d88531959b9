"""Options that `serve` and `run` share, and the supervisor made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from hesper.cli._sizes import UNITS
from hesper.isolation.supervisor import Supervisor
from hesper.portable import physical_memory
from hesper.vtest.refusal import VtestRefuser

if TYPE_CHECKING:
    from hesper.isolation.listen import Listener

SERVER = Group("Server", sort_key=1)
LIMITS = ("memory", "objects", "rings", "arena", "resources")
MOST_PATIENCE = 100_000
"""Microseconds."""

ANSWER_SECONDS = 30.0
"""Seconds in which a client gets an answer, if it has more time than that to introduce itself."""
CLIENT_BYTES = 64 << 20
"""What a client's worker is taken to need when the number of clients is chosen."""
FEWEST_CLIENTS, MOST_CLIENTS = 64, 1024
"""What is chosen is at least the one and at most the other."""


def parse_limit(text: str) -> tuple[str, int]:
    """Parse `NAME=NUMBER`; the number may end in K, M, G or T.  Raises `ValueError`."""
    name, separator, number = text.partition("=")
    unit = UNITS.get(number[-1:].upper(), 0)
    digits = number[:-1] if unit else number
    if name not in LIMITS or not separator or not digits.isdecimal() or int(digits) < 1:
        raise ValueError(
            f"{text!r} is no limit: it must be NAME=NUMBER, NAME being one of {', '.join(LIMITS)},"
            " NUMBER at least 1, with K, M, G or T if you like"
        )
    return name, int(digits) * (unit or 1)


def default_clients() -> int:
    """How many clients this machine's memory has room for."""
    return min(max(FEWEST_CLIENTS, physical_memory() // CLIENT_BYTES), MOST_CLIENTS)


def _check_limits(_: Any, limits: Sequence[str]) -> None:
    for limit in limits:
        parse_limit(limit)


def _check_patience(_: Any, patience: int | None) -> None:
    if patience is not None and not 0 <= patience <= MOST_PATIENCE:
        raise ValueError(f"must be 0 to {MOST_PATIENCE}")


Patience = Annotated[
    int | None, Parameter(metavar="MICROSECONDS", validator=_check_patience, negative=())
]


@Parameter(name="*", group=SERVER)
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How clients are served."""

    driver: str | None = None
    """The host's Vulkan driver: its name (see `hesper drivers`) or its manifest. Default: the one
    that can do most for guests."""
    host_profile: Annotated[str | None, Parameter(name="--host-profile")] = None
    """Show guests no more than another driver would offer: a file, or `moltenvk`."""
    max_clients: int | None = None
    """Clients served at a time; more wait a few seconds and are refused. Default: as many as memory
    has room for."""
    warm: int | None = None
    """Workers kept ready for the next clients. Default: 2 for `serve`, 1 for `run`."""
    limit: Annotated[
        tuple[str, ...],
        Parameter(metavar="NAME=NUMBER", validator=_check_limits, negative=()),
    ] = field(default=())
    """What one client may use at most: memory, objects, rings, arena or resources, as in
    `memory=8G`. Can be repeated."""
    handshake_timeout: float = 30.0
    """Seconds a client has to introduce itself; 0: for ever."""
    patience: Patience = None
    """Microseconds for which threads stay awake for what a client may send next: fewer delays, more
    processor time. Default: 500 with a GPU and four processors or more, else 0."""
    sample: int = 0
    """Look every so many microseconds at what each client's streams are doing, and log it when
    the client leaves (see `hesper bench --explain`)."""
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    """Log what is at least as important as this. Default: info for `serve`, warning for `run`."""

    def supervisor(self, listeners: Sequence[Listener], *, warm: int) -> Supervisor:
        """A supervisor of vtest workers; it takes over `listeners`.

        warm: workers kept ready unless the user has said.
        """
        options = {
            "driver": self.driver,
            "profile": self.host_profile,
            "limits": dict(map(parse_limit, self.limit)),
            "handshake_timeout": self.handshake_timeout or None,
            "patience": self.patience,
            "sample": self.sample,
        }
        return Supervisor(
            listeners,
            "hesper.vtest.service",
            options,
            warm=warm if self.warm is None else self.warm,
            max_clients=self.max_clients or default_clients(),
            patience=min(self.handshake_timeout or ANSWER_SECONDS, ANSWER_SECONDS),
            refuse=VtestRefuser(),
        )
