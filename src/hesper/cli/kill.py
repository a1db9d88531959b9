"""End a program's use of the GPU, by its number in `hesper ps`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hesper.cli import fail
from hesper.observe.asking import end_among, servers
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
        places = {tuple(server.report().sockets) for server in found}
        if len(places) > 1:
            known = ", ".join(plain(place) for each in sorted(places) for place in each)
            fail(f"several servers of yours run: say --socket, one of {known}")
        name = end_among(found, id)
    if name is None:
        fail(f"there is no program {id}; hesper ps lists those that there are")
    print(f"ended {id} ({plain(name)})")
