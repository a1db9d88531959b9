"""Logging: `get_logger(__name__).info("event", key=value)`, as with structlog.

A program that uses Hesper finds the events where it looks for others: with the loggers of the
standard library, from `hesper` downwards.  Nothing is set up for it.  The command line calls
`configure`: one event a line on standard error, for people or as JSON, rendered by structlog.  In
workers `set_sink` sends events to the supervisor, so that one process writes all lines.

The standard library's logging, and structlog, are imported with the first event that needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_PACKAGE = "hesper"

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Port = Callable[[str, str, str, dict[str, Any]], None]
"""Takes level, logger name, event and fields; called from any thread."""


class Logger:
    """Logs events under a name, with fields that are on every line."""

    __slots__ = ("_fields", "_name")

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        """Use `get_logger`, and `bind` for more fields."""
        self._name = name
        self._fields = fields

    def bind(self, **fields: Any) -> Logger:
        """Return a logger that adds `fields` to every event."""
        return Logger(self._name, {**self._fields, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        """Log what only matters when something is looked for."""
        emit("debug", self._name, event, self._fields | fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what happens in the course of things."""
        emit("info", self._name, event, self._fields | fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what works, but not as one would wish."""
        emit("warning", self._name, event, self._fields | fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what has failed."""
        emit("error", self._name, event, self._fields | fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log an error with the traceback of the exception being handled."""
        import traceback

        fields["exception"] = traceback.format_exc().rstrip()
        emit("error", self._name, event, self._fields | fields)


def get_logger(name: str, **fields: Any) -> Logger:
    """Return a logger; `name` is the module's."""
    return Logger(name, fields)


def emit(level: str, name: str, event: str, fields: dict[str, Any]) -> None:
    """Pass an event on, if `level` is asked for."""
    if LEVELS[level] >= _threshold:
        _sink(level, name, event, fields)


def configure(*, level: str = "info", json: bool = False) -> None:
    """Write events of `level` and above to standard error.

    Lines are coloured on a terminal, or JSON objects.  Raises `ValueError` for an unknown level.
    """
    global _sink, _threshold  # noqa: PLW0603  a process has one log
    if level not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; known: {', '.join(LEVELS)}")
    _threshold = LEVELS[level]
    _sink = _Renderer(json=json)


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
    import logging

    # What a worker sends may have any name, also such as nobody has heard of.
    known = name in sys.modules and name.startswith(f"{_PACKAGE}.")
    logger = logging.getLogger(name if known else _PACKAGE)
    if not logger.isEnabledFor(LEVELS[level]):
        return
    words = [f"{key}={_word(value)}" for key, value in fields.items() if key != "exception"]
    text = " ".join([event, *words])
    trace = str(_plain(fields.get("exception", "")))
    text += "".join(f"\n    {line}" for line in trace.splitlines())
    logger.log(LEVELS[level], "%s", text, extra={"event": event, "fields": fields})


def _word(value: Any) -> Any:
    """`value`, in quotes if it is text that one might take for something else."""
    is_plain = not isinstance(value, str) or (value.isprintable() and value)
    return value if is_plain and " " not in str(value) else repr(value)


class _Renderer:
    """Renders with structlog, which it imports with the first event."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._logger: Any = None

    def __call__(self, level: str, name: str, event: str, fields: dict[str, Any]) -> None:
        if self._logger is None:
            self._logger = self._make()
        getattr(self._logger, level)(event, logger=name, **fields)

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
    """Leave out the module's name, and what a guest might want a terminal to do."""
    event.pop("logger", None)
    return {key: _plain(value) for key, value in event.items()}


def _plain(value: Any) -> Any:
    """`value`, without control characters if it is text."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in value)


_threshold = 0
_sink: Port = _to_logging
