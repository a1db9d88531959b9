"""What a worker serves clients by: a service, named by its module.

The module has `prepare(options)`, which may take its time: it loads what every client needs, and
returns a `Service`.  `options` is a JSON object from whoever started the supervisor.  It may have
`preload()`, which imports what `prepare` will need and does nothing else.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from hesper.figures import Figures
    from hesper.kernel.ledger import Ledger
    from hesper.kernel.shares import Shares


class ClientError(Exception):
    """The client broke its protocol; the text names the command and the reason."""


class Refusal(Protocol):
    """Tells one client, which nobody serves, that it will not be served."""

    def hear(self) -> bool:
        """Answer what the client has said, if anything; False when all is said.  Never blocks.

        Raises `OSError`.
        """


Refuse: TypeAlias = Callable[[socket.socket, Any, str], Refusal]
"""Refuses the client at a non-blocking socket; with `Service.refusal` and the reason."""


Introduced: TypeAlias = Callable[[bytes], bool]
"""Whether what a client has sent first introduces it; its first 8192 bytes may be all it gets.
False: more is to come.  Raises `ClientError` for what no client sends first."""


class Watched(Protocol):
    """What can be seen of a context.  From any thread."""

    def figures(self, seconds: float) -> Figures:
        """What it has done and holds.  seconds: time its queues for so long from now on."""

    def trace(self, fd: int, seconds: float) -> None:
        """Note for so long, in the shared memory `fd`, what happens; returns at once."""


class Hearer(Protocol):
    """Is told what becomes of a client.  From any thread."""

    files: list[int]
    """Where the client is to be recorded, for the service to take over; empty: nowhere."""

    def named(self, name: str) -> None:
        """Take note of what it calls itself."""

    def ended(self, reason: str) -> None:
        """Take note that it is to be ended, and why; returns when the log has it.

        Before its connection is closed: who sees that finds the reason.  Never waits for long.
        """

    def lend(self, ledger: Ledger) -> None:
        """Have what its context takes bounded by what all clients together may have."""

    def show(self, watched: Watched) -> None:
        """Let whoever watches the server see what its context does."""

    def share(self, shares: Shares) -> None:
        """Have its context share the GPU's time with those of other clients."""


class Service(Protocol):
    """Serves one client."""

    about: dict[str, Any]
    """JSON object for whoever waits for the supervisor to be ready."""
    options: dict[str, Any]
    """Options for the workers that follow, so that they need not find out the same again."""
    refusal: Any
    """JSON value that the supervisor needs to refuse clients, see `Refuse`."""

    def warm_up(self) -> None:
        """Use the time until a client comes."""

    def limit(self, limits: dict[str, int]) -> None:
        """Serve the client within these (`limits.Limits`), which may be less than was prepared for.

        Before `serve`, if at all.
        """

    def serve(self, sock: socket.socket, hear: Hearer) -> None:
        """Serve the client at `sock` until it is gone, and close `sock`.

        hear: to be told of the client.  Raises `ClientError`.
        """

    def stop(self) -> None:
        """Make `serve` return soon.  Called from another thread, perhaps before `serve`."""
