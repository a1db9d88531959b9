"""A worker as its supervisor sees it."""

from __future__ import annotations

import signal
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hesper.figures import Figures
from hesper.isolation.shader_caches import Cache
from hesper.log import get_logger
from hesper.sandbox.seccomp import remedy

if TYPE_CHECKING:
    from hesper.classes import ClientClass
    from hesper.isolation.channel import Upstream
    from hesper.isolation.launch import Process
    from hesper.isolation.output import Output
    from hesper.isolation.turns import Timer
    from hesper.log import Logger
    from hesper.portable import Peer

_log = get_logger("hesper.isolation.crew")


@dataclass(eq=False)
class WorkerProcess:
    """A worker process: starting, ready, serving, surplus, ended."""

    process: Process
    control: socket.socket
    upstream: Upstream
    output: Output
    background: bool
    """Whether it gets ready with what processor time others leave."""
    gpu: int = 0
    """Number of the GPU on which it serves, see `isolation.gpus`."""
    shaders: Cache = field(default_factory=Cache)
    """Where its driver keeps shaders."""
    state: str = "starting"
    client: int = 0
    peer: Peer | None = None
    """Who its client is."""
    kind: ClientClass | None = None
    """The class of its client."""
    name: str = ""
    reason: str = ""
    failure: str = ""
    """Why it could not start, see `errors.start_error`."""
    since: float = field(default_factory=time.monotonic)
    crash: dict[str, str] = field(default_factory=dict)
    """What it was doing when a fatal signal came."""
    refused: tuple[int, list[int]] | None = None
    """The system call that it has died of, by its number, and its arguments."""
    killed: str = ""
    """Why we have killed it."""
    bound: str = ""
    """What bound of its control group it has died of."""
    is_told: bool = False
    """Whether the log says how its client has ended, while it still ends."""
    asked: bool = False
    """Whether it is to answer what its client does."""
    answered: float = 0.0
    """When it did so last; `time.monotonic`."""
    watch: float = 0.0
    """Seconds for which its client's queues were to be timed from then on."""
    figures: Figures = field(default_factory=Figures)
    """What it said then."""
    starting: Timer | None = None
    """What happens if it does not get ready."""

    def note_crash(self, message: dict[str, Any]) -> None:
        """Take note of what it was doing.  Raises `KeyError`, `TypeError`, `ValueError`."""
        known = {key: str(message[key])[:500] for key in ("command", "thread")}
        self.crash = {key: value for key, value in known.items() if value}
        if "call" in message:
            self.refused = (int(message["call"]), list(map(int, message["with"]))[:6])

    @property
    def fields(self) -> dict[str, Any]:
        """What log lines about its client say."""
        pid = self.peer.process if self.peer else 0
        kind = self.kind.name if self.kind is not None else ""
        known = {"client": self.client, "name": self.name, "pid": pid, "class": kind}
        return {key: value for key, value in known.items() if value}

    @property
    def who(self) -> str:
        """Whose doing it is what it logs, see `log.Logger.of`."""
        return str(self.peer) if self.peer else ""

    @property
    def log(self) -> Logger:
        """Where to log what is its client's doing."""
        return _log.of(self.who).bind(**self.fields)

    @property
    def end(self) -> str:
        """How it has ended, in words: `was killed by SIGSEGV`, `ended with status 70`."""
        status = self.process.returncode
        if self.bound:
            return self.bound
        if self.refused is not None and status == -signal.SIGSYS:
            return remedy(*self.refused)
        if status is None:
            return "ended, nobody knows how"
        if status >= 0:
            return f"ended with status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
