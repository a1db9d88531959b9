"""Serve Venus clients on a Unix socket, as virgl_test_server does."""

from __future__ import annotations

import json as json_module
import os
import select
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hesper import VtestServer, log
from hesper.classes import DEFAULT
from hesper.cli import _systemd, fail
from hesper.cli._server import ServerOptions, permissions
from hesper.cli._signals import STOPPING, handled
from hesper.cli._take_over import Predecessor, taking_over
from hesper.cli._watch import WatchOptions
from hesper.errors import StartError, StoppedError
from hesper.portable import never_garbage, raise_descriptor_limit
from hesper.sandbox import groups
from hesper.sandbox.helper import harden

if TYPE_CHECKING:
    from hesper.api.vtest import VtestOptions


def command(
    *,
    socket: Annotated[tuple[str, ...], Parameter(metavar="PATH[:class=NAME]", negative=())] = (
        VtestServer.DEFAULT_SOCKET,
    ),
    mode: Annotated[str, Parameter(name=["--mode", "--socket-mode"])] = "0600",
    socket_group: str | None = None,
    ready_fd: int | None = None,
    take_over: Annotated[Path | None, Parameter(negative=())] = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    server: ServerOptions = ServerOptions(),  # noqa: B008  frozen
    watch: WatchOptions = WatchOptions(),  # noqa: B008  frozen
) -> None:
    """Serve Venus clients on a Unix socket, as virgl_test_server does.

    Runs until Ctrl-C or SIGTERM. Prints one line on standard output when clients are served.
    A socket from systemd (socket activation) is used instead of one of our own.

    Clients find the server through `hesper run --socket PATH -- COMMAND`, or the variables that
    `hesper run --print-env` shows.

    Parameters
    ----------
    socket:
        Where clients connect; with a class, who connects there is in it (see --class). Can be
        repeated. A socket from systemd is of the class that its name (FileDescriptorName=) is.
    mode:
        Permissions of the socket, in octal: who may use the GPU. If its folder is missing it is
        made, with permissions to match.
    socket_group:
        Group of the socket, and of that folder.
    ready_fd:
        Write the ready line to this descriptor, too, and close it.
    take_over:
        Take the place of the server of yours that its clients reach there: its sockets of the same
        paths, or all where it was given them by systemd, its metrics' address, its status. Its
        clients stay with it until they leave. `hesper upgrade` does this with the same arguments.
    json:
        Log, and say ready, in JSON.
    server:
        How clients are served.
    watch:
        How it can be seen what they do.
    """
    log.configure(level=server.log_level or "info", json=json)
    watch.check()
    raise_descriptor_limit()
    groups.leave_control()
    if server.sandbox == "on":
        groups.settle()
    with taking_over(take_over) as predecessor:
        _serve(
            socket,
            server.options(
                warm=2, mode=permissions("--mode", mode), group=socket_group, is_shared=True
            ),
            predecessor,
            watch,
            lambda service: _say_ready(service, json=json, fd=ready_fd),
            lambda: _check_reader(ready_fd),
        )


def _serve(
    words: Sequence[str],
    options: VtestOptions,
    predecessor: Predecessor | None,
    watch: WatchOptions,
    say_ready: Callable[[VtestServer], None],
    check_wanted: Callable[[], None],
) -> None:
    """Serve until told to stop."""
    over = threading.Event()
    paths, kinds = _sockets(words)
    given, names = _systemd.sockets()
    if given:
        paths_given = [str(each.getsockname()) for each in given]
        kinds = _classes_of(dict(zip(paths_given, names, strict=True)), options)
    elif predecessor is not None and predecessor.were_given:
        given = [each.sock for each in predecessor.sockets]
        kinds = _classes_of({each.path: each.kind for each in predecessor.sockets}, options)

    def ready() -> None:
        never_garbage()
        harden(options.sandbox)
        if predecessor is not None:
            check_wanted()
            predecessor.retire(service)

    service = VtestServer(
        paths[0],
        options,
        more=paths[1:],
        socket_classes=kinds,
        sockets=given,
        handed=predecessor.of(paths) if predecessor is not None and not given else (),
        on_end=over.set,
        on_ready=ready,
    )
    came: list[int] = []

    def stop(number: int) -> None:
        """Stop in order, and on a second signal at once."""
        came.append(number)
        log.get_logger(__name__).info("stopping", signal=signal.Signals(number).name)
        over.set()
        service.stop(at_once=len(came) > 1, wait=False)

    with handled(STOPPING, stop):
        try:
            if not over.is_set():
                service.start()
                with watch.watched(service, "serve", lambda: list(service.sockets)):
                    # Who waits for that may ask at once what clients do, or take its place.
                    say_ready(service)
                    over.wait()
        except StoppedError:
            pass
        finally:
            if came:  # else another has taken its place, or it has failed
                _systemd.notify("STOPPING=1")
            service.stop()
    service.wait()  # raises what has ended it


def _classes_of(names: Mapping[str, str], options: VtestOptions) -> dict[str, str]:
    """The classes of sockets from systemd, by path; a unit that says no name has its own.

    Ends the program for a name that is no class': its clients would be of another one.
    """
    known = {DEFAULT, *(each.name for each in options.classes)}
    kinds = {path: name for path, name in names.items() if name and not name.endswith(".socket")}
    for path, name in kinds.items():
        if name not in known:
            fail(
                f"the socket {path} from systemd is called {name} (FileDescriptorName=), and there"
                f" is no class of that name: say --class {name}:..., or leave its name out"
            )
    return kinds


def _say_ready(service: VtestServer, *, json: bool, fd: int | None) -> None:
    """Tell whoever waits for it that clients are served, and can be watched."""
    about, paths = service.about, service.sockets
    for notice in dict.fromkeys(each.notice for each in about.gpus if each.notice):
        log.get_logger(__name__).warning(notice)
    if json:
        line = json_module.dumps({"event": "ready", "sockets": paths, **asdict(about)})
    else:
        devices = " and ".join(f"{each.device} ({each.driver})" for each in about.gpus)
        line = f"ready on {' and '.join(paths)} with {devices}"
    print(line, flush=True)
    _systemd.notify("READY=1")
    if fd is not None:
        os.write(fd, line.encode() + b"\n")
        os.close(fd)


def _check_reader(fd: int | None) -> None:
    """Raise `StartError` where nobody reads any more what is to be said there.

    A reload that has taken too long has failed, by what systemd knows: it would take the old
    server's end for the service's.
    """
    if fd is None:
        return
    poll = select.poll()
    poll.register(fd, 0)
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        raise StartError("whoever asked for this server waits no longer; the old one goes on")


def _sockets(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Paths of sockets, and the classes of those that have one."""
    paths, kinds = list[str](), dict[str, str]()
    for word in words:
        path, separator, kind = word.rpartition(":class=")
        if not separator:
            path = word
        elif not path or not kind:
            fail(f"--socket {word}: must be PATH:class=NAME, or PATH")
        else:
            kinds[path] = kind
        if not path:
            fail("--socket '': must be the path of a Unix socket")
        if path in paths:
            fail(f"--socket {path}: stands there twice")
        paths.append(path)
    return paths, kinds
