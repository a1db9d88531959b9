"""Prometheus metrics: a registry of Hesper's own, and its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from hesper.observe.rates import waits_for
from hesper.observe.words import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from hesper.api.server import Server
    from hesper.display.rfb.service import RfbService
    from hesper.display.scanout import Display
    from hesper.observe.contexts import ContextLedger


class DisplayCollector(Collector):
    """What is shown, and to how many."""

    def __init__(self, service: RfbService) -> None:
        """Report the screens of `service`."""
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Read the counters."""
        label = ["screen"]
        frames = CounterMetricFamily("hesper_guest_frames", "Frames flushed", labels=label)
        updates = CounterMetricFamily("hesper_display_updates", "Updates sent", labels=label)
        sent = CounterMetricFamily("hesper_display_sent_bytes", "Update bytes sent", labels=label)
        viewers = GaugeMetricFamily("hesper_display_viewers", "Viewers connected", labels=label)
        pixels = GaugeMetricFamily("hesper_display_pixels", "Pixels of the picture", labels=label)
        for feed in self._service.feeds:
            screen = [str(feed.scanout.index + 1)]
            surface = feed.scanout.surface
            area = surface.size.width * surface.size.height if surface is not None else 0
            frames.add_metric(screen, feed.scanout.flushes)
            updates.add_metric(screen, feed.updates)
            sent.add_metric(screen, feed.sent)
            viewers.add_metric(screen, len(feed.viewers))
            pixels.add_metric(screen, area)
        yield from (frames, updates, sent, viewers, pixels)


class ContextCollector(Collector):
    """What contexts do, together and each while it is open."""

    def __init__(self, ledger: ContextLedger) -> None:
        """Report what `ledger` adds up."""
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        """Read the ledger."""
        totals = self._ledger.read()
        yield GaugeMetricFamily("hesper_contexts", "Contexts open", value=len(totals.open))
        yield CounterMetricFamily("hesper_commands", "Vulkan commands", value=totals.commands)
        yield CounterMetricFamily(
            "hesper_stream_bytes", "Bytes of command stream", value=totals.stream_bytes
        )
        label = ["context", "name"]
        commands = CounterMetricFamily(
            "hesper_context_commands", "Vulkan commands of an open context", labels=label
        )
        memory = GaugeMetricFamily(
            "hesper_context_memory_bytes", "Memory an open context holds", labels=label
        )
        limit = GaugeMetricFamily(
            "hesper_context_memory_limit_bytes", "Memory an open context may have", labels=label
        )
        account = GaugeMetricFamily(
            "hesper_context_account_bytes",
            "Bytes taken of an open context's memory limit, by what for",
            labels=[*label, "account"],
        )
        held = GaugeMetricFamily(
            "hesper_context_held", "What an open context holds", labels=[*label, "kind"]
        )
        most = GaugeMetricFamily(
            "hesper_context_held_limit", "What an open context may hold", labels=[*label, "kind"]
        )
        submissions = CounterMetricFamily(
            "hesper_context_submissions", "Calls of an open context's queues", labels=label
        )
        busy = CounterMetricFamily(
            "hesper_context_queue_busy_seconds",
            "Time for which an open context's queues had work, from a submission until its fence"
            " was seen, while somebody watched",
            labels=label,
        )
        frames = CounterMetricFamily(
            "hesper_context_frames",
            "Images of swapchains that an open context has got to draw to",
            labels=label,
        )
        age = GaugeMetricFamily("hesper_context_age_seconds", "Since it was opened", labels=label)
        waits = GaugeMetricFamily(
            "hesper_context_waits",
            "1 for what an open context was waiting for at this moment",
            labels=[*label, "for"],
        )
        gpu = GaugeMetricFamily(
            "hesper_context_gpu",
            "Number of the GPU that an open context is on, as in hesper_driver_info; 0 where there"
            " is one",
            labels=label,
        )
        kinds = GaugeMetricFamily(
            "hesper_context_class",
            "1 for the class that an open context is in, where there are classes",
            labels=[*label, "class"],
        )
        for figures in totals.open:
            # Some look at it on a terminal.
            labels = [str(figures.context), plain(figures.name)]
            gpu.add_metric(labels, figures.gpu)
            if figures.kind:
                kinds.add_metric([*labels, figures.kind], 1)
            commands.add_metric(labels, figures.commands)
            submissions.add_metric(labels, figures.submissions)
            busy.add_metric(labels, figures.busy_ns / 1e9)
            frames.add_metric(labels, figures.frames)
            age.add_metric(labels, figures.seconds)
            reason = waits_for(list(figures.doing)).partition(" (")[0]
            waits.add_metric([*labels, reason], 1)
            memory.add_metric(labels, figures.memory)
            limit.add_metric(labels, figures.limit)
            for name, size in figures.accounts.items():
                account.add_metric([*labels, name], size)
            for kind, (number, bound) in figures.held.items():
                held.add_metric([*labels, kind], number)
                most.add_metric([*labels, kind], bound)
        yield from (commands, memory, limit, account, held, most)
        yield from (submissions, busy, frames, age, waits, gpu, kinds)


class ServerCollector(Collector):
    """What clients are served with, and screens that no viewer has to look at."""

    def __init__(self, server: Server, display: Display | None) -> None:
        """Report `server`, and `display` if it has one."""
        self._server = server
        self._display = display

    def collect(self) -> Iterator[Metric]:
        """Ask the server."""
        if not self._server.is_running:
            return
        about = self._server.about
        info = InfoMetricFamily("hesper_driver", "What clients are served with")
        for number, served in enumerate(about.gpus):
            gpu = {"gpu": str(number)} if about.others else {}
            info.add_metric([], {"driver": served.driver, "device": served.device, **gpu})
        yield info
        if self._display is not None:
            frames = CounterMetricFamily("hesper_guest_frames", "Frames flushed", labels=["screen"])
            for each in self._display:
                frames.add_metric([str(each.index + 1)], each.flushes)
            yield frames


class Metrics:
    """A registry to which whatever there is to report is added."""

    def __init__(self) -> None:
        """Begin with nothing to report."""
        self.registry = CollectorRegistry(auto_describe=False)

    def add_display(self, service: RfbService) -> None:
        """Report a display's screens."""
        self.registry.register(DisplayCollector(service))

    def add_server(self, server: Server, display: Display | None) -> None:
        """Report a server, and its screens where `add_display` does not."""
        self.registry.register(ServerCollector(server, display))

    def add_contexts(self, ledger: ContextLedger) -> None:
        """Report contexts."""
        self.registry.register(ContextCollector(ledger))

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)
