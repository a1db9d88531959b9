"""Have a new server take a running one's place; nobody who is served loses anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hesper.cli import _systemd, fail
from hesper.cli._take_over import arguments_for, current
from hesper.observe.asking import servers
from hesper.observe.words import plain


def command(
    *,
    socket: Annotated[Path | None, Parameter(negative=())] = None,
) -> None:
    """Have a new `hesper serve` take a running one's place, after Hesper or a driver was updated.

    The new one is this installation's Hesper, with the arguments and from the folder of the old
    one, and with this command's environment and output; `hesper serve --take-over` does the same
    with arguments of your own. Clients that come from then on are the new one's. Those that are
    there stay with the old one, which ends when the last has left: `hesper ps` shows both.
    Where the new one cannot serve, the old one goes on as if nothing had been.

    Under systemd it is what `systemctl reload hesper` does (`ExecReload=`), and the new one is the
    service's main process from then on.

    Parameters
    ----------
    socket:
        Of the server that its clients reach there; needed where several servers of yours run.
    """
    with servers(socket) as found:
        server = current(found)
        report = server.report()
        sockets, about = server.sockets()
        for each in sockets:
            each.sock.close()
    if about.arguments[:1] != ["serve"]:
        fail(f"hesper {report.kind} was not started as `hesper serve`: say serve --take-over")
    place = sockets[0].path
    process = _start(arguments_for(about, place), about.folder)
    print(
        f"process {process} takes clients on {plain(place)}; process {report.process} has"
        f" {len(report.clients)}, and ends when the last has left",
        flush=True,
    )
    _systemd.notify(f"MAINPID={process}")


_NOBODYS_CHILD = (
    "import os, sys; os.fork() and os._exit(0);"
    "os.write(int(sys.argv.pop(1)), b'%d\\n' % os.getpid());"
    "from hesper.cli import main; main()"
)
"""Says its process id, and is the server.

systemd has to be its parent before it hears of it: it waits for no end of a main process that is
not its child, and kills all of the service at once that it is to stop.
"""


def _start(arguments: list[str], folder: str) -> int:
    """Start the server apart from this command; returns its process id when it serves."""
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-c", _NOBODYS_CHILD, str(writing)),
                *arguments,
                *("--ready-fd", str(writing)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # its log goes there, too; ours ends with this command
            cwd=folder,
            pass_fds=[writing],
            start_new_session=True,
        )
    except OSError as error:
        fail(f"cannot start a server in {folder}: {error.strerror}")
    finally:
        os.close(writing)
    process.wait()
    with open(reading, "rb") as ready:
        said = ready.read().splitlines()
    if len(said) < 2:
        fail("the new server cannot serve, it says why above; the old one goes on")
    return int(said[0])
