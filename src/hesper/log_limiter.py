"""Keeps whoever can cause log lines from filling the log, and says how many were left out.

Lines of one topic (logger and event) have an allowance: some at once, then one now and then.  So
have all lines of one client, and those of all clients together: a client may make up topics, and
come again.  What is past an allowance is held back; some seconds later the last line that was held
is written with the number of the others, `left_out`.  Nothing goes without being counted.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Port = Callable[[str, str, str, dict[str, Any]], None]
"""Takes level, logger name, event and fields; called from any thread."""

EVERY = 10.0
"""Seconds for which lines are held back before one says how many they were."""
MOST_TOPICS = 1024
"""Allowances that are kept; the one that has not been used for longest goes first."""


class Rate(NamedTuple):
    """How much is allowed."""

    at_once: int
    """Lines."""
    seconds: float
    """Until there is one more."""


TOPIC = Rate(10, 6.0)
"""Of one topic, and of one client where lines have one."""
CLIENT = Rate(60, 2.0)
"""Of one client."""
ALL = Rate(300, 1.0)
"""Of all clients."""

_RANKS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Line(NamedTuple):
    """What a port takes."""

    level: str
    name: str
    event: str
    fields: dict[str, Any]


@dataclass(slots=True, eq=False)
class _Allowance:
    """A bucket of tokens, and what came when it was empty."""

    rate: Rate
    of: str
    """Whose lines these are; empty: of one topic."""
    at: float
    """When `left` was counted."""
    left: float = field(init=False)
    held: int = field(default=0, init=False)
    """Lines that are held back."""
    last: Line = field(default=Line("debug", "", "", {}), init=False)
    level: str = field(default="", init=False)
    due: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.left = float(self.rate.at_once)

    def takes(self, now: float) -> bool:
        """Whether a line may be written."""
        if self.held:
            return False
        self.left = min(self.rate.at_once, self.left + (now - self.at) / self.rate.seconds)
        self.at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True

    def hold(self, line: Line, now: float) -> None:
        """Hold `line` back."""
        if not self.held:
            self.due = now + EVERY
            self.level = line.level
        # Another limiter may have left some out before.
        before = line.fields.get("left_out", 0)
        self.held += 1 + (before if isinstance(before, int) and before > 0 else 0)
        self.level = max(self.level, line.level, key=_RANKS.__getitem__)
        self.last = line

    def told(self, now: float) -> Line:
        """What there is to say of the lines that were held back; they are forgotten."""
        line, held = self.last, self.held
        self.held = 0
        self.left, self.at = 0.0, now
        if self.of:
            fields = {"number": held, "of": self.of, "last": line.event}
            return Line(self.level, __name__, "log lines left out", fields)
        others = {"left_out": held - 1} if held > 1 else {}
        return Line(self.level, line.name, line.event, {**line.fields, **others})


class Limiter:
    """Passes lines on within their allowances.  Any thread may call it."""

    def __init__(self, port: Port, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `port`.  clock: seconds."""
        self._port = port
        self._clock = clock
        # A signal's handler may log.
        self._lock = threading.RLock()
        self._allowances: OrderedDict[tuple[str, str, str], _Allowance] = OrderedDict()
        self._holding: deque[_Allowance] = deque()  # by when they are due
        self._teller: threading.Thread | None = None
        self._is_flushed_at_exit = False

    def __call__(
        self, level: str, name: str, event: str, fields: dict[str, Any], who: str = ""
    ) -> None:
        """Write a line, or hold it back.

        who: whose doing it is, for what more than one client can cause; lines of different ones do
        not use up each other's allowance.
        """
        line = Line(level, name, event, fields)
        with self._lock:
            now = self._clock()
            out = self._due(now)
            if self._admit(line, who, now, out):
                out.append(line)
        for one in out:
            self._port(*one)

    def flush(self) -> None:
        """Say now what was left out."""
        with self._lock:
            now = self._clock()
            held = [one.told(now) for one in self._holding]
            self._holding.clear()
        for line in held:
            self._port(*line)

    def _admit(self, line: Line, who: str, now: float, out: list[Line]) -> bool:
        """Whether all allowances have room for `line`; the first that has not holds it back."""
        wanted = [((line.name, line.event, who), TOPIC, "")]
        if who:
            wanted += [(("", "", who), CLIENT, who), (("", "", ""), ALL, "all clients")]
        for key, rate, of in wanted:
            allowance = self._allowances.get(key)
            if allowance is None:
                allowance = self._allowances[key] = _Allowance(rate, of, at=now)
                self._forget_one(now, out)
            self._allowances.move_to_end(key)
            if not allowance.takes(now):
                if not allowance.held:
                    self._holding.append(allowance)
                    self._tell_later()
                allowance.hold(line, now)
                return False
        return True

    def _forget_one(self, now: float, out: list[Line]) -> None:
        """Keep no more than `MOST_TOPICS`."""
        if len(self._allowances) <= MOST_TOPICS:
            return
        _, oldest = self._allowances.popitem(last=False)
        if oldest.held:
            self._holding.remove(oldest)
            out.append(oldest.told(now))

    def _due(self, now: float) -> list[Line]:
        """What is to be said by now of lines that were held back."""
        out = []
        while self._holding and self._holding[0].due <= now:
            out.append(self._holding.popleft().told(now))
        return out

    def _tell_later(self) -> None:
        """See to it that what is held back is told of, even if nothing else is logged any more."""
        if not self._is_flushed_at_exit:
            self._is_flushed_at_exit = True
            atexit.register(self._flush_at_exit)
        if self._teller is None:
            teller = threading.Thread(target=self._tell, name="hesper log", daemon=True)
            # Where there can be no thread, the next line says it.
            with contextlib.suppress(RuntimeError):
                teller.start()
                self._teller = teller

    def _tell(self) -> None:
        while True:
            with self._lock:
                if not self._holding:
                    self._teller = None
                    return
                pause = self._holding[0].due - self._clock()
            if pause > 0:
                time.sleep(pause)
            with self._lock:
                out = self._due(self._clock())
            with contextlib.suppress(OSError, ValueError):
                for line in out:
                    self._port(*line)

    def _flush_at_exit(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.flush()
