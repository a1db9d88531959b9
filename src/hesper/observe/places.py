"""Where the status sockets of servers lie: in a folder of the user, which no container is given.

Not beside the socket of the clients: whoever may use the GPU may not look at others, or end them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from hesper.errors import HesperError

_NAME = "hesper-status"


def _candidates() -> list[Path]:
    """Folders, the best first; paths of sockets in them are short enough."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    found = [Path(runtime) / _NAME] if 0 < len(runtime) < 60 else []
    if os.geteuid() == 0:
        found.append(Path("/run") / _NAME)
    return [*found, Path("/tmp") / f"{_NAME}-{os.geteuid()}"]


def _is_ours(folder: Path) -> bool:
    """Whether it is a folder into which nobody else can put, or see, a socket."""
    try:
        about = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(about.st_mode)
        and about.st_uid == os.geteuid()
        and not stat.S_IMODE(about.st_mode) & 0o077
    )


def own_folder() -> Path:
    """The folder for a new status socket, made if need be.  Raises `HesperError`."""
    problems = []
    for folder in _candidates():
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
            continue
        if _is_ours(folder):
            return folder
        problems.append(f"{folder}: others can use it")
    raise HesperError(f"no folder for a status socket: {'; '.join(problems)}")


def status_socket(server: str) -> Path:
    """Where the server that listens on that socket has its status socket.  Raises `HesperError`."""
    digest = hashlib.sha256(os.fsencode(os.path.abspath(server))).hexdigest()
    return own_folder() / digest[:16]


def status_sockets() -> list[Path]:
    """Those of all servers of this user, some of which may be gone."""
    found = []
    for folder in filter(_is_ours, _candidates()):
        found += [path for path in sorted(folder.iterdir()) if path.is_socket()]
    return found
