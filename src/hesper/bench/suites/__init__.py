"""What can be measured: `SUITES`, by name, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.bench.suites.app import AppSuite
from hesper.bench.suites.calls import INSTANCES, LATENCY, MEMORY, STREAM
from hesper.bench.suites.footprint import FootprintSuite
from hesper.bench.suites.scale import ScaleSuite
from hesper.bench.suites.soak import SoakSuite

if TYPE_CHECKING:
    from hesper.bench.suites.base import Suite

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        LATENCY,
        STREAM,
        MEMORY,
        INSTANCES,
        AppSuite(),
        ScaleSuite(),
        FootprintSuite(),
        SoakSuite(),
    )
}

USUAL = tuple(name for name in SUITES if name != "soak")
"""What is measured unless the user says otherwise."""
