"""Runs a supervisor of echo workers, as a process for tests.  Its argument is a JSON object."""

from __future__ import annotations

import json
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from hesper import log, log_limiter
from hesper.classes import Classes, ClientClass
from hesper.cli import _systemd
from hesper.cli._signals import STOPPING, handled
from hesper.errors import ListenError, StartError
from hesper.isolation import (
    crew,
    entrance,
    gpus,
    launching,
    path_keeper,
    peers,
    serving,
    shader_caches,
    shader_folders,
    supervisor,
    total,
)
from hesper.isolation.doorstep import Admission
from hesper.isolation.listen import Access, adopt, bind
from hesper.isolation.peers import Quota
from hesper.isolation.service import ClientError
from hesper.isolation.shader_caches import ShaderCaches
from hesper.limits import Limits

wanted = json.loads(sys.argv[1])
log_limiter.EVERY = 0.2
path_keeper.LOOK_SECONDS = 0.05
path_keeper.TAKE_BACK_SECONDS = 0.1
if wanted.get("watched"):
    path_keeper.LOOK_SECONDS = 3600.0
elif "watched" in wanted:
    vars(path_keeper)["path_watch"] = lambda _: -1
crew.STOP_PATIENCE = wanted.get("patience", crew.STOP_PATIENCE)
crew.START_PATIENCE = wanted.get("start_patience", crew.START_PATIENCE)
launching.TEMPLATE_BACKOFF = wanted.get("template_backoff", launching.TEMPLATE_BACKOFF)
total.UNCOUNTED = wanted.get("uncounted", total.UNCOUNTED)
gpus.SURPLUS_SECONDS = wanted.get("surplus_seconds", gpus.SURPLUS_SECONDS)
shader_caches.LOOK_SECONDS = 0.05
for module in (shader_caches, shader_folders):
    vars(module)["MOST_BYTES"] = wanted.get("most_bytes", 1 << 30)
serving.AUDIT_SECONDS = wanted.get("audit_seconds", serving.AUDIT_SECONDS)
supervisor.PLACE_PATIENCE = wanted.get("place_patience", supervisor.PLACE_PATIENCE)
entrance.ACCEPT_PAUSE = wanted.get("accept_pause", entrance.ACCEPT_PAUSE)
if "connections_at_once" in wanted:
    peers.CONNECTIONS_AT_ONCE = wanted["connections_at_once"]
    peers.CONNECTIONS_A_SECOND = 0.0
if "descriptors" in wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted["descriptors"],) * 2)


def introduced(data: bytes) -> bool:
    """Whether an echo client has said a line; none begins with a blank."""
    if data.startswith(b" "):
        raise ClientError("it begins with a blank")
    return b"\n" in data


class Refusal:
    """Tells an echo client why, in a line of its own."""

    def __init__(self, sock: socket.socket, material: Any, reason: str) -> None:
        self._sock = sock
        self._text = f"{material}: {reason}\n"

    def hear(self) -> bool:
        if self._text:
            self._sock.send(self._text.encode())
            self._text = ""
        return bool(wanted.get("refuse_slowly"))


log.configure(json=True, level="debug")
if "slow_log" in wanted:
    written = vars(log)["_sink"]

    def write_slowly(*line: Any) -> None:
        """Write it, but not at once."""
        time.sleep(wanted["slow_log"])
        written(*line)

    log.set_sink(write_slowly, level="info")
try:
    listeners = list(map(adopt, _systemd.sockets()[0])) or [
        bind(wanted["path"], Access(wanted.get("mode", 0o600)))
    ]
    kinds = tuple(ClientClass(name=name) for name in wanted.get("classes", ()))
    listeners += [bind(f"{wanted['path']}-{each.name}", kind=each.name) for each in kinds]
    one = supervisor.Supervisor(
        listeners,
        "echo_service",
        wanted.get("gpus") or wanted.get("options", {}),
        warm=wanted.get("warm", 1),
        max_clients=wanted.get("max_clients", 64),
        patience=wanted.get("answer_within", 30.0),
        admission=Admission(
            introduced if "silence" in wanted else None,
            wanted.get("silence"),
            Quota(wanted.get("per_process")),
            wanted.get("memory"),
            Refusal,
            Classes(kinds, Limits()) if kinds else None,
            caches=ShaderCaches(wanted["shaders"][0], wanted["shaders"][1], Path(wanted["root"]))
            if "root" in wanted
            else None,
        ),
        sandbox=wanted.get("sandbox", "on"),
    )
    seen: list[int] = []

    def stop(number: int) -> None:
        """Stop in order, and on a second signal at once."""
        name = signal.Signals(number).name
        log.get_logger(__name__).info("stopping", signal=name)
        seen.append(number)
        one.stop(at_once=f"a second {name}" if len(seen) > 1 else "")

    with handled(STOPPING, stop):
        one.run(lambda abouts: print(json.dumps({"event": "ready", **abouts[0]}), flush=True))
except (StartError, ListenError) as error:
    sys.exit(f"failed: {error}")
