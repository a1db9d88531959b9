"""End a program's use of the GPU, by its number in `hesper ps`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hesper.cli import fail
from hesper.observe.asking import servers
from hesper.observe.words import plain


def command(
    id: int,  # noqa: A002  as users say it
    /,
    *,
    socket: Annotated[Path | None, Parameter(negative=())] = None,
) -> None:
    """End a program's use of the GPU, by its number in `hesper ps`.

    Its worker is killed, as if the driver had crashed; the program itself goes on, and mostly ends
    with a lost device.

    Parameters
    ----------
    id:
        Its number.
    socket:
        Of the server that its clients reach there; needed where several servers of yours run.
    """
    with servers(socket) as found:
        if len(found) > 1:
            places = ", ".join(
                plain(place) for server in found for place in server.report().sockets
            )
            fail(f"several servers of yours run: say --socket, one of {places}")
        name = found[0].end(id)
    if name is None:
        fail(f"there is no program {id}; hesper ps lists those that there are")
    print(f"ended {id} ({plain(name)})")
