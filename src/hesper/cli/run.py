"""Run a program whose Vulkan goes through Hesper."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, Parameter

from hesper import VtestServer, log
from hesper.api.client import client_environment, find_venus
from hesper.cli import EXIT_USAGE, fail
from hesper.cli._server import ServerOptions
from hesper.cli._signals import handled
from hesper.cli._watch import WatchOptions
from hesper.errors import StoppedError
from hesper.portable import private_folder

FORWARDED = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that are the program's, not ours."""

_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


command = App(name="run", usage="Usage: hesper run [OPTIONS] -- COMMAND...")


@command.default
def run(
    *words: Annotated[str, Parameter(name="COMMAND")],
    socket: Annotated[Path | None, Parameter(negative=())] = None,
    venus: Annotated[Path | None, Parameter(negative=())] = None,
    print_env: Annotated[bool, Parameter(negative=())] = False,
    server: ServerOptions = ServerOptions(),  # noqa: B008  frozen
    watch: WatchOptions = WatchOptions(),  # noqa: B008  frozen
) -> None:
    """Run a program whose Vulkan goes through Hesper.

    Starts a server for this program alone, ends with it, and passes on its exit status.

    Example: `hesper run -- vkcube`

    Parameters
    ----------
    words:
        The program and its arguments.
    socket:
        Use the server on this socket instead of one of our own.
    venus:
        Manifest of the Mesa Venus driver, where it is not found by itself.
    print_env:
        Print the variables that lead a program to `hesper serve`, and do nothing else.
    server:
        How the program is served.
    watch:
        How it can be seen what it does.
    """
    if print_env:
        manifest = find_venus(venus)
        path = str(socket or VtestServer.DEFAULT_SOCKET)
        for name, value in client_environment(manifest, path).items():
            print(f"export {name}={shlex.quote(value)}")
        return
    if not words:
        print("hesper: no program: say hesper run -- COMMAND", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
    manifest = manifest_for(words[0], venus)
    if socket is not None:
        os.execvpe(words[0], words, os.environ | client_environment(manifest, str(socket)))
    log.configure(level=server.log_level or "warning")
    watch.check()
    end_like(serve_program(words, manifest, server, watch))


def manifest_for(program: str, venus: Path | None) -> Path:
    """The manifest of Venus for a program that can be run; ends the command where it cannot."""
    manifest = find_venus(venus)
    if not shutil.which(program):
        fail(f"cannot run {program}: no such program")
    return manifest


def serve_program(
    words: tuple[str, ...],
    manifest: Path,
    options: ServerOptions,
    watch: WatchOptions = WatchOptions(),  # noqa: B008  frozen
) -> int:
    """Run the program beside a server of its own; return its exit status (negative: signal)."""
    program: subprocess.Popen[bytes] | None = None
    interrupted = 0
    beginning = threading.Lock()

    def signalled(number: int) -> None:
        nonlocal interrupted
        with beginning:
            if program is None:
                interrupted = number
                if not server.is_running:
                    server.stop(wait=False)
            elif not (number in _FROM_TERMINAL and _in_foreground()):
                program.send_signal(number)

    with private_folder() as folder:
        server = VtestServer(folder / "vtest", options.options(warm=1))
        with (
            handled(FORWARDED, signalled),
            contextlib.suppress(StoppedError),
            server,
            watch.watched(server, "run", lambda: list(server.sockets)),
        ):
            if not interrupted:
                environment = os.environ | server.client_environment(manifest)
                try:
                    started = subprocess.Popen(words, env=environment)
                except OSError as error:
                    fail(f"cannot run {words[0]}: {error.strerror}")
                with beginning:
                    program = started
                    if interrupted:
                        program.send_signal(interrupted)
                program.wait()
    return program.returncode if program else -interrupted


def _in_foreground() -> bool:
    """Whether a terminal sends its signals to us, and so to the program as well."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def end_like(status: int) -> NoReturn:
    """End as the program has: with its status, or by its signal."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
        # Reached for a signal that does not end a process.
        raise SystemExit(128 - status)
    raise SystemExit(status)
