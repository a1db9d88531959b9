"""The host's Vulkan drivers, and which one serves guests best."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from hesper.host import drivers as host
from hesper.host.diagnosis import guest_only
from hesper.host.drivers import Device, Driver
from hesper.host.probe import probe_drivers
from hesper.host.ranking import best_driver, why_lost

__all__ = ["Device", "Driver", "Drivers", "drivers"]


@dataclass(frozen=True)
class Drivers:
    """The drivers of a host."""

    found: tuple[Driver, ...]
    """Those that are installed, with their devices, in the order of the Vulkan loader."""
    chosen: Driver | None
    """The one of them that would serve guests; None when none can."""
    broken: tuple[str, ...]
    """Manifests that cannot be used, one line each: path and reason."""

    @property
    def problem(self) -> str:
        """Why none can serve guests, in lines, with what was tried; empty when one can."""
        return "" if self.chosen is not None else host.explain(self.found, self.broken)

    def why_not(self, driver: Driver) -> str:
        """Why `driver`, of `found`, is not the chosen one; empty for the chosen one."""
        if driver is self.chosen:
            return ""
        return (
            guest_only(driver)
            or driver.problem
            or (why_lost(driver, self.chosen) if self.chosen is not None else "")
        )


def drivers(name: str | None = None, environ: Mapping[str, str] = os.environ) -> Drivers:
    """Find the host's Vulkan drivers, and ask each for its devices, in a process of its own.

    name: only the driver that answers to it: its name (`lvp`, `moltenvk`), what it or its device
    calls itself (`lavapipe`, `radv`), or the path of its manifest.
    environ: variables by which the Vulkan loader searches, VK_DRIVER_FILES among them.
    Takes as long as the slowest driver, 30 seconds at most.  Raises `errors.NoDriverError` where a
    driver was named and cannot serve guests.
    """
    if name is not None:
        named = host.choose_driver(name, environ=environ)
        return Drivers((named,), named, ())
    found = host.find_drivers(environ)
    probed = iter(probe_drivers([each for each in found.drivers if not each.is_guest], environ))
    every = tuple(each if each.is_guest else next(probed) for each in found.drivers)
    return Drivers(every, best_driver(every), found.broken)
