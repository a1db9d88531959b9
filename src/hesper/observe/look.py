"""What all servers of a user do: reports with rates, for a screen or a script."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hesper.observe.asking import WatchError, servers
from hesper.observe.rates import Rates, Row, ScreenRow

if TYPE_CHECKING:
    from hesper.observe.wire import Report

WATCH_SECONDS = 5.0
"""For which queues are timed after a look: longer than until the next."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A server, what its clients do, and its screens."""

    report: Report
    rows: list[Row]
    screens: list[ScreenRow]


class Look:
    """Looks at servers again and again; those that begin and end meanwhile come and go."""

    def __init__(self, named: Path | None = None, interval: float = 1.0) -> None:
        """Look at the server whose clients connect to `named`, or at all, every `interval` s."""
        self._named = named
        self._watch = min(300.0, interval + WATCH_SECONDS)
        self._rates: dict[int, Rates] = {}

    def see(self) -> list[Seen]:
        """Look once more.  Raises `WatchError` where there is no server."""
        found = []
        with servers(self._named) as there:
            for server in there:
                try:
                    report = server.report(self._watch)
                except (OSError, WatchError):
                    continue  # it is about to end
                rates = self._rates.setdefault(report.process, Rates())
                found.append(Seen(report, *rates.rows(report)))
        self._rates = {seen.report.process: self._rates[seen.report.process] for seen in found}
        return found

    def see_twice(self, interval: float) -> list[Seen]:
        """Look, and again after so many seconds: only then rates are known."""
        self.see()
        time.sleep(interval)
        return self.see()


def as_json(seen: list[Seen]) -> list[dict[str, Any]]:
    """The same, for scripts."""
    return [
        {
            "kind": each.report.kind,
            "sockets": each.report.sockets,
            "driver": each.report.driver,
            "device": each.report.device,
            "gpus": msgspec.to_builtins(each.report.gpus),
            "retired": each.report.retired,
            "process": each.report.process,
            "clients": [_client(row) for row in each.rows],
            "screens": [
                {
                    "screen": screen.screen,
                    "width": screen.width,
                    "height": screen.height,
                    "frames_per_second": round(screen.frames, 3),
                }
                for screen in each.screens
            ],
        }
        for each in seen
    ]


def _client(row: Row) -> dict[str, Any]:
    client = row.client
    return {
        "id": client.context,
        "name": client.name,
        "process": client.process or None,
        "user": client.user if client.user >= 0 else None,
        "gpu": client.gpu,
        "class": client.kind or None,
        "seconds": round(client.seconds, 3),
        "commands": client.commands,
        "commands_per_second": round(row.commands, 3),
        "submissions": client.submissions,
        "submissions_per_second": round(row.submissions, 3),
        "frames": client.frames,
        "frames_per_second": round(row.frames, 3),
        "queue_busy_seconds": client.busy_ns / 1e9,
        "queue_busy": round(row.busy, 6),
        "queue_seconds_per_submission": round(row.each, 9),
        "memory": client.memory,
        "memory_used": sum(client.accounts.values()),
        "memory_limit": client.limit,
        "accounts": client.accounts,
        "held": {kind: {"number": n, "limit": most} for kind, (n, most) in client.held.items()},
        "waits_for": row.waits_for,
        "streams": [{"stage": stage, "command": command} for stage, command in client.doing],
    }
