"""What can be measured: `SUITES`, by name, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.bench.suites.app import AppSuite
from hesper.bench.suites.calls import LATENCY, MEMORY, STREAM
from hesper.bench.suites.footprint import FootprintSuite
from hesper.bench.suites.scale import ScaleSuite

if TYPE_CHECKING:
    from hesper.bench.suites.base import Suite

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (LATENCY, STREAM, MEMORY, AppSuite(), ScaleSuite(), FootprintSuite())
}
