"""Options of commands that serve, about being watched; and of those that watch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from hesper.extras import needed
from hesper.observe.status import StatusServer

if TYPE_CHECKING:
    from hesper.api.server import Server
    from hesper.display.scanout import Display

WATCHING = Group("Watching", sort_key=3)
METRICS_SECONDS = 60.0
"""For which queues are timed after each scrape: longer than Prometheus waits until the next."""


@Parameter(name="*", group=WATCHING)
@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How it can be seen what programs do."""

    metrics: Annotated[str | None, Parameter(metavar="HOST:PORT")] = None
    """Serve figures for Prometheus there, at /metrics; a port alone is one of this machine's own
    address; on a Unix socket with `unix:PATH`. Whoever can connect can read them."""
    status: bool = True
    """Let this user's `hesper top`, `hesper ps` and `hesper kill` see the server."""

    @contextlib.contextmanager
    def watched(
        self,
        server: Server,
        kind: str,
        sockets: Callable[[], list[str]],
        display: Display | None = None,
    ) -> Iterator[None]:
        """Have `server`, which runs, watched as asked.  Raises `HesperError`.

        kind: the command that it is.  sockets: where its clients connect.
        """
        with contextlib.ExitStack() as stack, contextlib.ExitStack() as exporting:
            # Another server that takes this one's place has the same address for its own.
            if self.status:
                stack.enter_context(StatusServer(server, kind, sockets, display, exporting.close))
            if self.metrics is not None:
                exporting.enter_context(_exporter(self.metrics, server, display))
            yield

    def check(self) -> None:
        """Look whether what is asked for can be had.  Raises `HesperError`."""
        if self.metrics is not None:
            _parse(self.metrics)


def _parse(text: str) -> Any:
    with needed("--metrics", "watch"):
        from hesper.observe.exporter import ExporterError, parse_address
    try:
        return parse_address(text)
    except ValueError as error:
        raise ExporterError(f"--metrics {text}: {error}") from None


def _exporter(text: str, server: Server, display: Display | None) -> Any:
    where = _parse(text)
    with needed("--metrics", "watch"):
        from hesper.observe.contexts import ContextLedger
        from hesper.observe.exporter import Exporter
        from hesper.observe.metrics import Metrics
    metrics = Metrics()
    metrics.add_server(server, display)
    metrics.add_contexts(ContextLedger(lambda: server.survey(METRICS_SECONDS)))
    return Exporter(where, metrics.text)
