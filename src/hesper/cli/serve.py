"""Serve Venus clients on a Unix socket, as virgl_test_server does."""

from __future__ import annotations

import json as json_module
import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hesper import log
from hesper.cli import fail
from hesper.cli._server import ServerOptions
from hesper.isolation.listen import ListenError, bind, from_systemd, notify_systemd
from hesper.isolation.service import StartError
from hesper.portable import raise_descriptor_limit
from hesper.vtest.wire import DEFAULT_SOCKET


def command(
    *,
    socket: Annotated[Path, Parameter(negative=())] = Path(DEFAULT_SOCKET),
    mode: str = "0600",
    ready_fd: int | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    server: ServerOptions = ServerOptions(),  # noqa: B008  frozen
) -> None:
    """Serve Venus clients on a Unix socket, as virgl_test_server does.

    Runs until Ctrl-C or SIGTERM. Prints one line on standard output when clients are served.
    A socket from systemd (socket activation) is used instead of one of our own.

    Clients find the server through `hesper run --socket PATH -- COMMAND`, or the variables that
    `hesper run --print-env` shows.

    Parameters
    ----------
    socket:
        Where clients connect.
    mode:
        Permissions of the socket, in octal: who may use the GPU.
    ready_fd:
        Write the ready line to this descriptor, too, and close it.
    json:
        Log, and say ready, in JSON.
    server:
        How clients are served.
    """
    log.configure(level=server.log_level or "info", json=json)
    raise_descriptor_limit()
    try:
        listeners = from_systemd() or [bind(str(socket), _permissions(mode))]
    except ListenError as error:
        fail(str(error))
    paths = [listener.path for listener in listeners]

    def ready(about: dict[str, Any]) -> None:
        if about["notice"]:
            log.get_logger(__name__).warning(about["notice"])
        if json:
            line = json_module.dumps({"event": "ready", "sockets": paths, **about})
        else:
            line = f"ready on {' and '.join(paths)} with {about['device']} ({about['driver']})"
        print(line, flush=True)
        if ready_fd is not None:
            os.write(ready_fd, line.encode() + b"\n")
            os.close(ready_fd)
        notify_systemd("READY=1")

    try:
        server.supervisor(listeners, warm=2).run(ready)
    except StartError as error:
        fail(str(error))
    finally:
        notify_systemd("STOPPING=1")


def _permissions(mode: str) -> int:
    try:
        value = int(mode, 8)
    except ValueError:
        value = -1
    if not 0 <= value <= 0o777:
        fail(f"--mode {mode}: must be octal permissions, as in 0660")
    return value
