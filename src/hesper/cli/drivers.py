"""List the host's Vulkan drivers, and which one guests would be served with."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from hesper.cli import EXIT_FAILURE, PLAIN_WIDTH
from hesper.host.diagnosis import guest_only
from hesper.host.drivers import Driver, find_drivers
from hesper.host.probe import probe_drivers
from hesper.host.ranking import best_driver, why_lost


def command(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the host's Vulkan drivers, and which one guests would be served with.

    The name in the first column is what `--driver` takes. Ends with 1 when there is none to use.

    Parameters
    ----------
    json:
        Print the drivers as JSON.
    """
    found = find_drivers()
    usable = iter(probe_drivers([driver for driver in found.drivers if not driver.is_guest]))
    drivers = [driver if driver.is_guest else next(usable) for driver in found.drivers]
    chosen = best_driver(drivers)
    if json:
        listed = [
            {
                **asdict(driver),
                "guest_only": driver.is_guest,
                "chosen": driver is chosen,
                "not_chosen": why_lost(driver, chosen) if chosen is not None else "",
            }
            for driver in drivers
        ]
        print(json_module.dumps({"drivers": listed, "broken": found.broken}, indent=2))
    else:
        _show(drivers, chosen, found.broken)
    if chosen is None:
        raise SystemExit(EXIT_FAILURE)


def _show(drivers: list[Driver], chosen: Driver | None, broken: tuple[str, ...]) -> None:
    """Print for people; colours only on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "Name", "Devices", "Vulkan", "Manifest"):
        table.add_column(title, overflow="fold")
    for driver in drivers:
        style = "" if driver.devices and not driver.is_guest else "dim"
        mark = Text("->", style="green") if driver is chosen else Text("")
        text = guest_only(driver) or driver.problem
        versions = driver.api_version
        if driver.devices and not text:
            text = "\n".join(f"{device.name} ({device.type})" for device in driver.devices)
            versions = "\n".join(device.api_version for device in driver.devices)
            if chosen is not None and (why := why_lost(driver, chosen)):
                text += f"\nnot chosen: {why}"
        table.add_row(mark, driver.name, Text(text), versions, Text(driver.manifest), style=style)
    console.print(table)
    for line in broken:
        console.print(f"broken: {line}", style="yellow", markup=False, soft_wrap=True)
    if chosen is not None and chosen.notice:
        console.print(f"note: {chosen.notice}", style="yellow", markup=False, soft_wrap=True)
