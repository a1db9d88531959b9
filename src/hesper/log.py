"""Logging: `get_logger(__name__).info("event", key=value)`, as with structlog.

A program that uses Hesper finds the events where it looks for others: with the loggers of the
standard library, from `hesper` downwards.  Nothing is set up for it.  The command line calls
`configure`: one event a line on standard error, for people or as JSON, rendered by structlog.  In
workers `set_sink` sends events to the supervisor, so that one process writes all lines.

Whoever can cause lines cannot fill the log with them: each goes through a `log_limiter.Limiter`.
What more than one client, viewer or program of a guest can cause is logged by `get_logger(...).of`
that one, so that none uses up another's allowance.  Text is cut, and what a terminal might obey is
escaped.

The standard library's logging, and structlog, are imported with the first event that needs them.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

from hesper.log_limiter import Limiter, Port

if TYPE_CHECKING:
    import logging

_PACKAGE = "hesper"

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

MOST_TEXT = 1000
"""Characters of a text that are logged, and bytes of anything else that is written as text."""
MOST_KEY = 50
MOST_FIELDS = 30
MOST_TRACE = 8000
"""The same of a traceback; and of lists and the like, which are Hesper's own."""

_TAKEN = frozenset(
    {"event", "exc_info", "level", "logger", "self", "stack", "stack_info", "timestamp"}
)
"""Keys that structlog takes for something else."""


class Logger:
    """Logs events under a name, with fields that are on every line."""

    __slots__ = ("_fields", "_name", "_who")

    def __init__(self, name: str, fields: dict[str, Any], who: str = "") -> None:
        """Use `get_logger`, `bind` for more fields, and `of`."""
        self._name = name
        self._fields = fields
        self._who = who

    def bind(self, **fields: Any) -> Logger:
        """Return a logger that adds `fields` to every event."""
        return Logger(self._name, {**self._fields, **fields}, self._who)

    def of(self, who: str) -> Logger:
        """Return a logger for what `who` causes, which has an allowance of its own.

        who: what that one cannot change at will, as its address; no number that is new each time.
        """
        return Logger(self._name, self._fields, who)

    def debug(self, event: str, **fields: Any) -> None:
        """Log what only matters when something is looked for."""
        emit("debug", self._name, event, self._fields | fields, self._who)

    def info(self, event: str, **fields: Any) -> None:
        """Log what happens in the course of things."""
        emit("info", self._name, event, self._fields | fields, self._who)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what works, but not as one would wish."""
        emit("warning", self._name, event, self._fields | fields, self._who)

    def error(self, event: str, **fields: Any) -> None:
        """Log what has failed."""
        emit("error", self._name, event, self._fields | fields, self._who)

    def exception(self, event: str, **fields: Any) -> None:
        """Log an error with the traceback of the exception being handled."""
        import traceback

        fields["exception"] = traceback.format_exc().rstrip()
        emit("error", self._name, event, self._fields | fields, self._who)


def get_logger(name: str, **fields: Any) -> Logger:
    """Return a logger; `name` is the module's."""
    return Logger(name, fields)


def emit(level: str, name: str, event: str, fields: dict[str, Any], who: str = "") -> None:
    """Log an event, if `level` is asked for.  who: see `Logger.of`.

    Raises `KeyError` for a level that there is not.
    """
    if _is_wanted(level, name):
        some = itertools.islice(fields.items(), MOST_FIELDS)
        clean = {_key(key): _clean(key, value) for key, value in some}
        _limiter(level, name, _text(event, MOST_TEXT), clean, who)


def pass_on(level: str, name: str, event: str, fields: dict[str, Any]) -> None:
    """Write an event that another process of ours has let through by `emit`."""
    if _is_wanted(level, name):
        _write(level, name, event, fields)


def flush() -> None:
    """Write at once what there is to say of lines that were left out: before a process ends."""
    _limiter.flush()


def _is_wanted(level: str, name: str) -> bool:
    if LEVELS[level] < _threshold:
        return False
    return _sink is not _to_logging or _standard_logger(name).isEnabledFor(LEVELS[level])


def _write(level: str, name: str, event: str, fields: dict[str, Any]) -> None:
    _sink(level, name, event, fields)


def _key(key: str) -> str:
    """`key` as a field may be called."""
    return f"{key}_" if key in _TAKEN else _text(key, MOST_KEY) or "_"


def _clean(key: str, value: Any) -> Any:
    """`value` as it may be logged."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:MOST_TRACE] if key == "exception" else _text(value, MOST_TEXT)
    if isinstance(value, dict | list | tuple):
        return value if len(repr(value)) <= MOST_TRACE else _text(repr(value), MOST_TRACE)
    return _text(str(value), MOST_TEXT)


def _text(text: str, most: int) -> str:
    """`text`, cut, and with escapes for what cannot be seen or what a terminal might obey."""
    if len(text) > most:
        text = f"{text[:most]}... ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def configure(*, level: str = "info", json: bool = False) -> None:
    """Write events of `level` and above to standard error.

    Lines are coloured on a terminal, or JSON objects.  Raises `ValueError` for an unknown level.
    """
    global _sink, _threshold  # noqa: PLW0603  a process has one log
    if level not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; known: {', '.join(LEVELS)}")
    _threshold = LEVELS[level]
    _sink = _Renderer(json=json)


def get_ready() -> None:
    """Import now what the first line would wait for: half a second on a machine that is busy."""
    if isinstance(_sink, _Renderer):
        _sink.get_ready()


def take_over(*names: str) -> None:
    """Write what these loggers of the standard library get here, too; after `configure`."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = next((n for n, rank in LEVELS.items() if rank >= record.levelno), "error")
            fields = {"text": record.getMessage()}
            if record.exc_info:
                fields["exception"] = logging.Formatter().formatException(record.exc_info)
            emit(level, record.name, f"told by {record.name}", fields)

    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [Handler()]
        logger.propagate = False


def set_sink(sink: Port, *, level: str) -> None:
    """Give events of `level` and above to `sink` instead."""
    global _sink, _threshold  # noqa: PLW0603  a process has one log
    _threshold = LEVELS[level]
    _sink = sink


def threshold() -> str:
    """The level below which events are dropped."""
    wanted = _threshold
    if _sink is _to_logging:
        import logging

        wanted = logging.getLogger(_PACKAGE).getEffectiveLevel()
    return next((name for name, rank in LEVELS.items() if rank >= wanted), "error")


def _to_logging(level: str, name: str, event: str, fields: dict[str, Any]) -> None:
    """Log with the standard library; records have the attributes `event` and `fields`, too."""
    words = [f"{key}={_word(value)}" for key, value in fields.items() if key != "exception"]
    text = " ".join([event, *words]) + "".join(_trace(fields.get("exception", "")))
    extra = {"event": event, "fields": fields}
    _standard_logger(name).log(LEVELS[level], "%s", text, extra=extra)


def _standard_logger(name: str) -> logging.Logger:
    import logging

    # What a worker sends may have any name, also such as nobody has heard of.
    known = name in sys.modules and name.startswith(f"{_PACKAGE}.")
    return logging.getLogger(name if known else _PACKAGE)


def _trace(text: Any) -> list[str]:
    """The lines of a traceback, which cannot be taken for others."""
    return [f"\n    {_text(line, MOST_TEXT)}" for line in str(text).splitlines()]


def _word(value: Any) -> Any:
    """`value`, in quotes if it is text that one might take for something else."""
    return value if value != "" and " " not in str(value) else repr(value)


class _Renderer:
    """Renders with structlog, which it imports with the first event unless `get_ready` has."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._logger: Any = None

    def __call__(self, level: str, name: str, event: str, fields: dict[str, Any]) -> None:
        self.get_ready()
        getattr(self._logger, level)(event, logger=name, **fields)

    def get_ready(self) -> None:
        if self._logger is None:
            self._logger = self._make()

    def _make(self) -> Any:
        import structlog

        stream = sys.stderr
        renderers: list[Any]
        if self._json:
            renderers = [
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(default=str),
            ]
        else:
            renderers = [
                _for_people,
                structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
                structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0),
            ]
        return structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[structlog.processors.add_log_level, *renderers],
            wrapper_class=structlog.BoundLogger,
        )


def _for_people(_: Any, __: str, event: Any) -> Any:
    """Leave out the module's name, and indent tracebacks."""
    event.pop("logger", None)
    if "exception" in event:
        event["exception"] = "".join(_trace(event["exception"])).lstrip("\n")
    return event


_threshold = 0
_sink: Port = _to_logging
_limiter = Limiter(_write)
