"""What is measured: figures with a name, a unit, and a direction that is better."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from hesper.bench.client.statistics import median


class Unit(StrEnum):
    """Units of figures, as they are kept; `show` scales them for people."""

    MICROSECONDS = "us"
    NANOSECONDS = "ns"
    MILLISECONDS = "ms"
    PER_SECOND = "1/s"
    BYTES_PER_SECOND = "B/s"
    OPERATIONS_PER_SECOND = "FLOP/s"
    FRAMES_PER_SECOND = "FPS"
    TOKENS_PER_SECOND = "t/s"
    BYTES = "B"
    SHARE = ""


_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SCALED = {Unit.PER_SECOND, Unit.BYTES_PER_SECOND, Unit.OPERATIONS_PER_SECOND}


class Metric(msgspec.Struct, frozen=True):
    """One figure of a suite."""

    title: str
    unit: Unit
    more_is_better: bool
    detail: bool = False
    """Whether it explains another figure: it stays out of pictures."""

    @classmethod
    def rate(cls, title: str, unit: Unit = Unit.PER_SECOND, *, detail: bool = False) -> Metric:
        """More is better."""
        return cls(title, unit, more_is_better=True, detail=detail)

    @classmethod
    def cost(cls, title: str, unit: Unit = Unit.MICROSECONDS, *, detail: bool = False) -> Metric:
        """Less is better."""
        return cls(title, unit, more_is_better=False, detail=detail)

    def show(self, value: float) -> str:
        """`value` for people, with its unit."""
        if self.unit is Unit.BYTES:
            return f"{_digits(value / 1e6)} MB"
        if self.unit in _SCALED:
            scale, prefix = next((p for p in _PREFIXES if value >= p[0]), _PREFIXES[-1])
            unit = "/s" if self.unit is Unit.PER_SECOND else self.unit.value
            return f"{_digits(value / scale)} {prefix}{unit}".replace(" /s", "/s")
        return f"{_digits(value)} {self.unit.value}".strip()


def _digits(value: float) -> str:
    """Three significant digits, never an exponent."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


class Values(msgspec.Struct, frozen=True):
    """What one side has shown in all runs."""

    runs: tuple[float, ...]
    """At least one."""

    @property
    def median(self) -> float:
        """The value in the middle."""
        return median(self.runs)

    @property
    def spread(self) -> float:
        """Half of what lies between the least and the most, as a share of the median."""
        middle = self.median
        return (max(self.runs) - min(self.runs)) / 2 / middle if middle else 0.0


class Row(msgspec.Struct, frozen=True):
    """One metric on all sides that have shown it, by the side's name."""

    key: str
    metric: Metric
    values: dict[str, Values]

    def ratio(self, side: str, base: str) -> float | None:
        """The median of `side` as a share of that of `base`.

        None where one is missing or 0, and for what is a share already.
        """
        if self.metric.unit is Unit.SHARE or side not in self.values or base not in self.values:
            return None
        if not self.values[base].median:
            return None
        return self.values[side].median / self.values[base].median
