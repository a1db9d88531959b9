"""What a worker serves clients by: a door, named by its module.

The module has `prepare(options)`, which may take its time: it loads what every client needs, and
returns a `Door`.  `options` is a JSON object from whoever started the supervisor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol


class ClientError(Exception):
    """The client broke its protocol; the text names the command and the reason."""


class StartError(Exception):
    """The worker cannot serve; the text says why and what to do."""


class Door(Protocol):
    """Serves one client."""

    about: dict[str, Any]
    """JSON object for whoever waits for the supervisor to be ready."""
    options: dict[str, Any]
    """Options for the workers that follow, so that they need not find out the same again."""

    def warm_up(self) -> None:
        """Use the time until a client comes."""

    def serve(self, sock: socket.socket, named: Callable[[str], None]) -> None:
        """Serve the client at `sock` until it is gone, and close `sock`.

        named: to be told what the client calls itself.  Raises `ClientError`.
        """

    def stop(self) -> None:
        """Make `serve` return soon.  Called from another thread, perhaps before `serve`."""
