"""A client, and the session of a worker that serves it on a thread of the test's process."""

from __future__ import annotations

import socket
import threading

from vtest_client import Client

from hesper.isolation.service import ClientError, Watched
from hesper.kernel.ledger import Ledger
from hesper.kernel.shares import Shares
from hesper.vtest.service import VtestService


class Nobody:
    """Is told of a client, and does not mind."""

    def __init__(self) -> None:
        """It is not recorded."""
        self.files: list[int] = []

    def named(self, name: str) -> None:
        """It has a name."""

    def ended(self, reason: str) -> None:
        """It is to be ended."""

    def lend(self, ledger: Ledger) -> None:
        """It has a ledger."""

    def show(self, watched: Watched) -> None:
        """It can be seen."""

    def share(self, shares: Shares) -> None:
        """It shares with nobody."""


class ServedContext:
    """One client and its session.  Life: made, used, `end`ed."""

    def __init__(self, service: VtestService) -> None:
        """Connect; the client has yet to shake hands."""
        ours, theirs = socket.socketpair()
        self.client = Client(ours)
        self.service = service
        self.reason: str | None = None
        """Why the session has ended its client."""
        self._crash: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, args=[theirs])
        self._thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            self.service.serve(sock, Nobody())
        except ClientError as error:
            self.reason = str(error)
        except BaseException as error:
            self._crash = error

    def end(self, seconds: float) -> None:
        """Leave, as the supervisor notices it.

        Raises what the session did not expect, `TimeoutError` when it does not end in that time,
        and `ValueError` where the reason is more than a line.
        """
        self.client.sock.close()
        self.service.stop()
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError("the session does not end")
        if self._crash is not None:
            raise self._crash
        if self.reason is not None and "\n" in self.reason:
            raise ValueError(f"a reason of several lines: {self.reason!r}")
