"""List the host's Vulkan drivers, and which one guests would be served with."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import hesper
from hesper.cli import EXIT_FAILURE, PLAIN_WIDTH

if TYPE_CHECKING:
    from hesper.api.drivers import Driver, Drivers


def command(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the host's Vulkan drivers, and which one guests would be served with.

    The name in the first column is what `--driver` takes. Ends with 1 when there is none to use.

    Parameters
    ----------
    json:
        Print the drivers as JSON.
    """
    found = hesper.drivers()
    if json:
        listed = [
            {
                **asdict(driver),
                "guest_only": driver.is_guest,
                "chosen": driver is found.chosen,
                "not_chosen": _lost_by(found, driver),
            }
            for driver in found.found
        ]
        print(json_module.dumps({"drivers": listed, "broken": found.broken}, indent=2))
    else:
        _show(found)
    if found.chosen is None:
        raise SystemExit(EXIT_FAILURE)


def _lost_by(found: Drivers, driver: Driver) -> str:
    """By what a driver that could be used was not chosen; empty for those that cannot."""
    return found.why_not(driver) if driver.devices and not driver.is_guest else ""


def _show(found: Drivers) -> None:
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
    for driver in found.found:
        style = "" if driver.devices and not driver.is_guest else "dim"
        mark = Text("->", style="green") if driver is found.chosen else Text("")
        lost_by = _lost_by(found, driver)
        text = "" if lost_by else found.why_not(driver)
        versions = driver.api_version
        if driver.devices and not text:
            text = "\n".join(f"{device.name} ({device.type})" for device in driver.devices)
            versions = "\n".join(device.api_version for device in driver.devices)
            if lost_by:
                text += f"\nnot chosen: {lost_by}"
        table.add_row(mark, driver.name, Text(text), versions, Text(driver.manifest), style=style)
    console.print(table)
    for line in found.broken:
        console.print(f"broken: {line}", style="yellow", markup=False, soft_wrap=True)
    if found.chosen is not None and found.chosen.notice:
        console.print(f"note: {found.chosen.notice}", style="yellow", markup=False, soft_wrap=True)
