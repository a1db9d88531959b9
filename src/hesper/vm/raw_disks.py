"""Disks that guests have had byte by byte, by their paths: kept from run to run.

Such a guest writes the first bytes of the file itself, by which a file is known otherwise: with the
head of an image there, its disk would be one at the next start, as large as the guest says.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from hesper.display.access.tls import state_folder
from hesper.log import get_logger

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "raw-disks"
"""In the state folder: a file for each, with the path in it."""

_log = get_logger(__name__)


def note(disk: Path) -> Path:
    """What is kept of a disk.  Raises `RuntimeError` where there is no home folder."""
    return state_folder() / FOLDER / hashlib.sha256(_path(disk)).hexdigest()[:32]


def remember(disk: Path) -> None:
    """Keep in mind that a guest gets this disk byte by byte."""
    try:
        kept = note(disk)
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept.write_bytes(_path(disk))
    except (OSError, RuntimeError) as error:
        _log.warning(
            "nobody will know that this disk is none of another format: call it .raw",
            disk=str(disk),
            reason=str(error),
        )


def is_known(disk: Path) -> bool:
    """Whether a guest has had it so."""
    try:
        return note(disk).exists()
    except (OSError, RuntimeError):
        return False


def _path(disk: Path) -> bytes:
    return os.fsencode(disk.resolve())
