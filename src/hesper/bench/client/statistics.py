"""From many times to few figures."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of `values` (at least one) do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(values: Sequence[float]) -> float:
    """The value in the middle (the upper one of two)."""
    return percentile(values, 0.5)


def latencies(name: str, times: Sequence[int]) -> dict[str, float]:
    """`NAME_p50` and `NAME_p99` in microseconds, from nanoseconds."""
    return {
        f"{name}_p50": percentile(times, 0.5) / 1e3,
        f"{name}_p99": percentile(times, 0.99) / 1e3,
    }
