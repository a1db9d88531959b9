"""Options of what serves guests, about recording them."""

# Annotations stay what they are: cyclopts looks for their names where classes are derived.

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hesper.api.recording import RecordOptions, check_recording
from hesper.cli._sizes import parse_size

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_seconds(text: str) -> float:
    """Parse a time as in `30s`, `5m` or `1h`; a number alone is seconds.  Raises `ValueError`."""
    unit = _SECONDS.get(text[-1:], 0)
    number = text[:-1] if unit else text
    try:
        seconds = float(number) * (unit or 1)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400 * 365:
        raise ValueError(f"{text!r} is no time: it must be as in 30s, 5m or 1h")
    return seconds


def check_seconds(_: Any, text: str | None) -> None:
    """Be a validator."""
    if text is not None:
        parse_seconds(text)


def check_size(_: Any, text: str | None) -> None:
    """Be a validator."""
    if text is not None:
        parse_size(text)


Seconds = Annotated[str | None, Parameter(metavar="TIME", validator=check_seconds, negative=())]
Bytes = Annotated[str | None, Parameter(metavar="SIZE", validator=check_size, negative=())]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What is recorded, and where."""

    record: Annotated[Path | None, Parameter(metavar="FOLDER", negative=())] = None
    """Record everything that clients send, and what memory they share holds, one file each, for
    `hesper inspect` and `hesper replay`."""
    last: Seconds = None
    """Keep of it about so much of the end, as in 30s, and that only of clients that end badly."""
    record_most: Bytes = None
    """A file is no larger than that. Default: 4G."""
    record_time: Seconds = None
    """Record no longer than that, as in 5m."""

    @property
    def recording(self) -> RecordOptions | None:
        """The same for servers.  Raises `OptionError`."""
        if self.record is None:
            return None
        return make_recording(self.record, self.last, self.record_most, self.record_time)


def make_recording(
    folder: Path, last: str | None, most: str | None, time: str | None
) -> RecordOptions:
    """Options from what the command line says.  Raises `OptionError`, `MissingExtraError`."""
    check_recording()
    found = RecordOptions(
        folder=str(folder.absolute()),
        last=parse_seconds(last) if last else 0.0,
        seconds=parse_seconds(time) if time else 0.0,
    )
    return found if most is None else _with_most(found, parse_size(most))


def _with_most(options: RecordOptions, most: int) -> RecordOptions:
    return RecordOptions(
        folder=options.folder, last=options.last, seconds=options.seconds, most=most
    )
