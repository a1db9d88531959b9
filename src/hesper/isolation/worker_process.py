"""A worker as its supervisor sees it."""

from __future__ import annotations

import signal
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hesper.isolation.channel import Upstream
    from hesper.isolation.launch import Process
    from hesper.isolation.turns import Timer


@dataclass(eq=False)
class WorkerProcess:
    """A worker process: starting, ready, serving, surplus, ended."""

    process: Process
    control: socket.socket
    upstream: Upstream
    background: bool
    """Whether it gets ready with what processor time others leave."""
    state: str = "starting"
    client: int = 0
    client_pid: int = 0
    name: str = ""
    reason: str = ""
    failure: str = ""
    """Why it could not start, see `errors.start_error`."""
    since: float = field(default_factory=time.monotonic)
    crash: dict[str, str] = field(default_factory=dict)
    """What it was doing when a fatal signal came."""
    killed: str = ""
    """Why we have killed it."""
    starting: Timer | None = None
    """What happens if it does not get ready."""

    @property
    def fields(self) -> dict[str, Any]:
        """What log lines about its client say."""
        known = {"client": self.client, "name": self.name, "pid": self.client_pid}
        return {key: value for key, value in known.items() if value}

    @property
    def end(self) -> str:
        """How it has ended, in words: `was killed by SIGSEGV`, `ended with status 70`."""
        status = self.process.returncode
        if status is None:
            return "ended, nobody knows how"
        if status >= 0:
            return f"ended with status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
