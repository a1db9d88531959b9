"""Runs a supervisor of echo workers, as a process for tests.  Its argument is a JSON object."""

from __future__ import annotations

import json
import resource
import signal
import socket
import sys
from typing import Any

from hesper import log
from hesper.cli import _systemd
from hesper.cli._signals import STOPPING, handled
from hesper.errors import ListenError, StartError
from hesper.isolation import crew, supervisor
from hesper.isolation.listen import adopt, bind

wanted = json.loads(sys.argv[1])
crew.STOP_PATIENCE = wanted.get("patience", crew.STOP_PATIENCE)
crew.START_PATIENCE = wanted.get("start_patience", crew.START_PATIENCE)
for name in ("PLACE_PATIENCE", "SURPLUS_SECONDS", "ACCEPT_PAUSE"):
    setattr(supervisor, name, wanted.get(name.lower(), getattr(supervisor, name)))
if "descriptors" in wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted["descriptors"],) * 2)


class Refusal:
    """Tells an echo client why, in a line of its own."""

    def __init__(self, sock: socket.socket, material: Any, reason: str) -> None:
        self._sock = sock
        self._text = f"{material}: {reason}\n"

    def hear(self) -> bool:
        self._sock.send(self._text.encode())
        return False


log.configure(json=True, level="debug")
try:
    listeners = list(map(adopt, _systemd.sockets())) or [bind(wanted["path"])]
    one = supervisor.Supervisor(
        listeners,
        "echo_service",
        wanted.get("options", {}),
        warm=wanted.get("warm", 1),
        max_clients=wanted.get("max_clients", 64),
        patience=wanted.get("answer_within", 30.0),
        refuse=Refusal,
    )
    seen: list[int] = []

    def stop(number: int) -> None:
        """Stop in order, and on a second signal at once."""
        name = signal.Signals(number).name
        log.get_logger(__name__).info("stopping", signal=name)
        seen.append(number)
        one.stop(at_once=f"a second {name}" if len(seen) > 1 else "")

    with handled(STOPPING, stop):
        one.run(lambda about: print(json.dumps({"event": "ready", **about}), flush=True))
except (StartError, ListenError) as error:
    sys.exit(f"failed: {error}")
