"""The devices of this node: those of CDI files, of which each can be used so many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hesper.containers import cdi

MOST_SHARES = 1000
"""Containers at once on one device."""


@dataclass(frozen=True)
class NodeDevice:
    """A server's socket that containers of this node may get."""

    name: str
    """As in CDI: `all`, or `class-NAME`."""
    socket: str
    is_healthy: bool
    """Whether a server answers there."""

    @property
    def cdi_name(self) -> str:
        """What the container runtime looks up."""
        return cdi.device_name(self.name)

    def share(self, number: int) -> str:
        """The name of one of its uses: a DNS label."""
        return f"{self.name}-{number}"


def node_devices(folders: Sequence[Path]) -> dict[str, NodeDevice]:
    """The devices that CDI files in `folders` have, by name.

    Asks each server; blocks for some seconds where one does not answer.  Raises `cdi.CdiError`.
    """
    found = {}
    for device in cdi.devices(folders):
        name = device.name.partition("=")[2]
        found[name] = NodeDevice(name, device.socket, device.is_served)
    return found


def name_of(share: str) -> str:
    """The name of the device whose use is called `share`."""
    return share.rpartition("-")[0]
