"""The workers of a device: a supervisor in a process of its own, and how contexts reach it.

The supervisor listens on a socket in a private folder; every connection is a context.  It is a
process of its own so that the device's process may use its main thread for windows, and so that
nothing a viewer or a guest keeps busy delays the start of a worker.

Run as `python -m hesper.gpu.workers FD`, FD being the control socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

import msgspec

from hesper import log
from hesper.classes import Classes, ClientClass
from hesper.errors import ListenError, StartError, start_error
from hesper.gpu.refusal import ContextRefusal
from hesper.isolation.doorstep import Admission
from hesper.isolation.launch import environment
from hesper.isolation.listen import bind
from hesper.isolation.shader_caches import ShaderCaches
from hesper.isolation.supervisor import Supervisor
from hesper.limits import Limits
from hesper.portable import (
    never_garbage,
    private_folder,
    raise_descriptor_limit,
    recv_message,
    send_message,
    spawn,
)
from hesper.sandbox.files import cache_folder
from hesper.sandbox.helper import harden

if TYPE_CHECKING:
    from hesper.sandbox import Mode

SERVICE = "hesper.gpu.service"
STOP_TIMEOUT = 10.0
"""Seconds from the order to stop to the kill."""
LEAVING = 16
"""Workers that may be on their way out while as many contexts run as may."""

_log = log.get_logger(__name__)


class Workers:
    """The device's side.  Life: made, `start`ed, `connect`ed to, `stop`ped."""

    def __init__(
        self,
        options: dict[str, Any],
        *,
        warm: int,
        contexts: int,
        classes: Classes | None = None,
        shares: bool = True,
        sandbox: Mode = "on",
        shaders_of: str | None = None,
    ) -> None:
        """`options`: for the service's `prepare`.

        warm: workers kept ready.  contexts: how many the device lets run at a time.  classes: of
        programs.  shares: whether they share the GPU's time.  sandbox: how workers are confined.
        shaders_of: what the machine's compiled shaders are kept by; None: they are not kept.
        """
        self._classes = classes if classes is not None and classes.are_there else None
        self._options = {
            "options": options,
            "warm": warm,
            "places": contexts + LEAVING,
            "classes": [msgspec.to_builtins(e) for e in self._classes.all] if self._classes else [],
            "shares": shares,
            "sandbox": sandbox,
            "shaders_of": shaders_of,
        }
        self._sandbox = sandbox
        self._stack = contextlib.ExitStack()
        self._path = ""
        self._control: socket.socket | None = None

    def start(self, ended: Callable[[], None]) -> dict[str, Any]:
        """Start it and wait until a worker can serve; returns what the service says of itself.

        `ended` is called, on a thread, when the supervisor ends without having been told to.
        Raises `StartError`.
        """
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(private_folder())
            self._path = str(folder / "contexts")
            control, theirs = socket.socketpair()
            stack.callback(control.close)
            thread = threading.Thread(target=self._watch, args=[control, ended], daemon=True)
            stack.callback(_join, thread)
            with theirs:
                fd = theirs.fileno()
                command = [sys.executable, "-P", "-m", __name__, str(fd)]
                try:
                    process = spawn(command, fds=[fd], env=environment(self._sandbox))
                except OSError as error:
                    raise StartError(f"cannot start the supervisor: {error}") from None
            stack.callback(_reap, process)
            order = {"path": self._path, "log_level": log.threshold(), **self._options}
            with contextlib.suppress(OSError):
                send_message(control, json.dumps(order).encode())
            answer = _hear(control) or {"kind": "", "failed": "the supervisor has ended"}
            if "failed" in answer:
                raise start_error(answer["kind"], answer["failed"])
            self._control = control
            thread.start()
            self._stack = stack.pop_all()
        about: dict[str, Any] = answer["ready"]
        return about

    def _watch(self, control: socket.socket, ended: Callable[[], None]) -> None:
        _hear(control)
        if self._control is not None:
            _log.error("the supervisor of the workers has ended")
            ended()

    def connect(self, name: str) -> socket.socket:
        """Return a socket to a worker, which may still be starting, for a program of that name.

        Raises `OSError`.
        """
        kind = self._classes.of_program(name).name if self._classes is not None else ""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(_path_of(self._path, kind))
        except OSError:
            sock.close()
            raise
        return sock

    def stop(self) -> None:
        """End all workers.  May be called again."""
        control, self._control = self._control, None
        if control is not None:
            # The end of the stream is the order to stop; what is logged about it is heard.
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_WR)
        self._stack.close()


def _hear(control: socket.socket) -> dict[str, Any] | None:
    """Log what the supervisor logs until it says something else; None when it is gone."""
    while True:
        try:
            message = recv_message(control)
        except OSError:
            return None
        if message is None:
            return None
        said: dict[str, Any] = json.loads(message[0])
        if "log" not in said:
            return said
        log.pass_on(*said["log"])


def _join(thread: threading.Thread) -> None:
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join()


def _reap(process: Any) -> None:
    try:
        process.wait(STOP_TIMEOUT)
    except TimeoutExpired:
        process.kill()
        process.wait()


def _path_of(path: str, kind: str) -> str:
    """Where contexts of a class connect; those of none where there is no class."""
    return f"{path}-{kind}" if kind else path


def _supervisor(order: dict[str, Any]) -> Supervisor:
    """Make it.  Raises `ListenError`."""
    limits = msgspec.convert(order["options"].get("limits", {}), Limits)
    known = msgspec.convert(order["classes"], tuple[ClientClass, ...])
    classes = Classes(known, limits) if known else None
    kinds = [each.name for each in known] or [""]
    options = {**order["options"]}
    if classes is not None:
        options["limits"] = msgspec.to_builtins(classes.widest)
    return Supervisor(
        [bind(_path_of(order["path"], kind), kind=kind) for kind in kinds],
        SERVICE,
        options,
        warm=order["warm"],
        max_clients=order["places"],
        admission=Admission(
            memory=order["options"].get("limits", {}).get("total_memory"),
            refuse=ContextRefusal,
            classes=classes,
            shares=order["shares"],
            # What programs are called is what the guest says: they are one client.
            caches=ShaderCaches(
                "off" if order["shaders_of"] is None else "server",
                f"machine {order['shaders_of']}",
                cache_folder(os.environ),
            ),
        ),
        sandbox=order["sandbox"],
    )


def main() -> None:
    """Be the supervisor."""
    raise_descriptor_limit()
    control = socket.socket(fileno=int(sys.argv[1]))
    message = recv_message(control)
    if message is None:
        return
    order = json.loads(message[0])
    saying = threading.Lock()

    def say(**values: Any) -> None:
        with contextlib.suppress(OSError), saying:
            send_message(control, json.dumps(values, default=str).encode())

    log.set_sink(lambda *event: say(log=event), level=order["log_level"])
    try:
        supervisor = _supervisor(order)

        def ready(abouts: list[dict[str, Any]]) -> None:
            never_garbage()
            harden(order["sandbox"])
            say(ready=abouts[0])

        def watch() -> None:
            with contextlib.suppress(OSError):
                recv_message(control)
            supervisor.stop()

        threading.Thread(target=watch, daemon=True).start()
        supervisor.run(ready)
    except (ListenError, StartError) as error:
        say(failed=str(error), kind=type(error).__name__)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
