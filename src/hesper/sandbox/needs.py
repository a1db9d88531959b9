"""`needs.toml`: what workers may do."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

import msgspec


class Values(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that is allowed for some values of an argument."""

    argument: int
    values: list[int]


class Bits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that is allowed without some bits of an argument."""

    argument: int
    bits: int


class Need(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a driver needs besides what all do, and why."""

    why: str
    source: str
    """Where that is from: a file of the driver's source, or that it was seen."""
    call: str = ""
    ioctl: int | None = None
    """Bits 8 to 15 of requests."""
    read: str = ""
    write: str = ""
    address_space: int = 0
    """GiB besides what a client may use."""
    preload: str = ""
    """A library that it loads, a pattern for its file's name: workers share what is loaded before
    they are forked."""


class Drivers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What some drivers need."""

    names: list[str]
    """As `host.drivers` calls them; `*` is any, `?` one that is not named."""
    needs: list[Need]


class Files(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of the system's files everybody may use."""

    read: list[str]
    write: list[str]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it."""

    calls: dict[str, list[str]]
    """By what they are for."""
    values: dict[str, Values]
    without: dict[str, Bits]
    own_thread: dict[str, list[int]]
    """Arguments of calls that must be 0, by the call."""
    errors: dict[str, str]
    """What calls fail with whose callers can live with that."""
    files: Files
    drivers: list[Drivers]


Needs: TypeAlias = tuple[Need, ...]


@functools.cache
def table() -> Table:
    """Read it."""
    text = Path(__file__).with_name("needs.toml").read_bytes()
    return msgspec.toml.decode(text, type=Table)


@functools.cache
def needs_of(driver: str) -> Needs:
    """What a driver needs besides; by its name, empty where there is no driver."""
    if not driver:
        return ()
    base = re.sub(r"-\d+$", "", driver)  # the second of that name
    is_known = any(base in some.names for some in table().drivers)
    wanted = {"*", base if is_known else "?"}
    return tuple(
        need for some in table().drivers if wanted & set(some.names) for need in some.needs
    )


def every_need() -> Needs:
    """What any driver needs besides."""
    return tuple(need for some in table().drivers for need in some.needs)


def to_preload(files: Iterable[str], needs: Needs) -> list[str]:
    """Those of `files` that `needs` have loaded by the process which workers are forked from."""
    patterns = [need.preload for need in needs if need.preload]
    return [
        file
        for file in files
        if any(fnmatchcase(os.path.basename(file), pattern) for pattern in patterns)
    ]
