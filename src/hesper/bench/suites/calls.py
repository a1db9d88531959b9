"""The suites that are one program each: `latency`, `stream`, `memory`, `instances`."""

from __future__ import annotations

from collections.abc import Mapping

from hesper.bench.client.instances import CROWDS
from hesper.bench.metric import Metric, Unit
from hesper.bench.sides import HESPER
from hesper.bench.suites.base import Run, Suite, ask

_cost, _rate = Metric.cost, Metric.rate


class ClientSuite(Suite):
    """A suite whose figures are those of one task of the measured program."""

    def __init__(self, name: str, title: str, metrics: Mapping[str, Metric]) -> None:
        """name: of the suite and of the task."""
        self.name = name
        self.title = title
        self._metrics = metrics

    def measure(self, run: Run) -> dict[str, float]:
        """Run the task."""
        figures: dict[str, float] = ask(run, self.name)["figures"]
        return figures

    def metric(self, key: str) -> Metric:
        """Look it up."""
        return self._metrics[key]


class LatencySuite(ClientSuite):
    """Adds what only Hesper has: its kernel alone."""

    def measure(self, run: Run) -> dict[str, float]:
        """Run the task, and on Hesper's side the kernel."""
        figures = super().measure(run)
        if run.side.name == HESPER:
            figures |= ask(run, "decode")["figures"]
        return figures


def _both(
    title: str, key: str, unit: Unit = Unit.MICROSECONDS, *, detail: bool = False
) -> dict[str, Metric]:
    return {
        f"{key}_{part}": _cost(f"{title}, {part}", unit, detail=detail) for part in ("p50", "p99")
    }


_DECODED = {
    "push": "push constants",
    "draw": "draw",
    "dispatch": "dispatch",
    "copy": "copy",
    "mixed": "mixed",
    "buffer": "create or destroy a buffer",
    "descriptors": "update a descriptor set",
    "round_trip": "a call with a reply",
}

LATENCY = LatencySuite(
    "latency",
    "Latency: one call after the other",
    {
        **_both("round trip", "round_trip"),
        **_both("round trip, idle before", "round_trip_idle"),
        **_both("image layout query", "layout", detail=True),
        **_both("empty submit + fence", "empty"),
        **_both("  the call", "empty_call", detail=True),
        **_both("  the fence", "empty_fence", detail=True),
        **_both("submit + fence", "submission"),
        **_both("  the call", "submission_call", detail=True),
        **_both("  the fence", "submission_fence", detail=True),
        **_both("submit + fence, idle before", "submission_idle"),
        **_both("  the call", "submission_idle_call", detail=True),
        **_both("  the fence", "submission_idle_fence", detail=True),
        **{
            f"decode_{key}": _cost(f"kernel alone: {title}", Unit.NANOSECONDS, detail=True)
            for key, title in _DECODED.items()
        },
        **_both("kernel alone: draw", "decode", Unit.NANOSECONDS, detail=True),
        **_both("kernel alone: draw, idle before", "decode_idle", Unit.NANOSECONDS, detail=True),
    },
)

_KINDS = {
    "push": "push constants",
    "draw": "draw",
    "dispatch": "dispatch",
    "copy": "copy",
    "mixed": "mixed",
}

STREAM = ClientSuite(
    "stream",
    "Streams: long command buffers",
    {
        **{key: _rate(f"{title}, to the fence") for key, title in _KINDS.items()},
        **{
            f"{key}_record": _rate(f"{title}, recorded only", detail=True)
            for key, title in _KINDS.items()
        },
    },
)

MEMORY = ClientSuite(
    "memory",
    "Memory and small objects",
    {
        **_both("allocate + free 64 KiB", "allocate", detail=True),
        **_both("allocate, map, touch, free 64 KiB", "allocate_map"),
        "allocate_large": _cost("allocate + map 64 MiB", detail=True),
        "first_write": _rate("mapped write, first time", Unit.BYTES_PER_SECOND, detail=True),
        "write": _rate("mapped write", Unit.BYTES_PER_SECOND),
        "read": _rate("mapped read", Unit.BYTES_PER_SECOND),
        "copy_host": _rate("device copy, host-visible", Unit.BYTES_PER_SECOND),
        "copy_device": _rate("device copy, device-local", Unit.BYTES_PER_SECOND),
        "buffers": _rate("create + destroy a buffer"),
        "descriptors": _rate("update a descriptor set"),
    },
)

INSTANCES = ClientSuite(
    "instances",
    "Instances with a device",
    {
        **_both("opened and closed, one after the other", "cycle"),
        **{
            f"together_{count}": _cost(f"{count} opened, all at once", Unit.MILLISECONDS)
            for count in CROWDS
        },
    },
)
