"""What a benchmark has found, as it is kept in a JSON file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hesper.bench.metric import Row  # noqa: TC001  msgspec reads the annotations
from hesper.errors import HesperError
from hesper.portable import processor_name, processors, system


class DocumentError(HesperError):
    """A file that holds no results; the text says why."""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    system: str
    processor: str
    cores: int

    @classmethod
    def this(cls) -> Machine:
        """The machine we run on."""
        return cls(system(), processor_name(), processors())


class SuiteResult(msgspec.Struct, frozen=True):
    """The figures of one suite."""

    name: str
    title: str
    rows: tuple[Row, ...]


class Document(msgspec.Struct, frozen=True):
    """Everything a benchmark has found."""

    version: str
    """Of Hesper."""
    time: str
    """When it was begun: ISO 8601, UTC."""
    command: str
    machine: Machine
    driver: str
    """The host's driver and its version."""
    devices: dict[str, str]
    """By side: what the device calls itself there."""
    peer_command: str
    """How the peer was started; empty when there was none."""
    runs: int
    suites: tuple[SuiteResult, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    failures: tuple[str, ...] = ()
    """What went wrong where it should not have."""

    def write(self, path: Path) -> None:
        """Write it as JSON.  Raises `OSError`."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read what `write` has written.  Raises `DocumentError`."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise DocumentError(f"{path}: {error.strerror}") from None
        except msgspec.DecodeError as error:
            raise DocumentError(f"{path} holds no results of hesper bench: {error}") from None


def now() -> str:
    """The time, as documents have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
