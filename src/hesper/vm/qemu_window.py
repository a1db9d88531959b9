"""QEMU's own display of the guest's screens: a window, SPICE, and virt-manager by that.

It takes a device of QEMU's that has both a display and memory that it shares with the guest.  As of
11.1 `vhost-user-gpu-pci` has the one, and `vhost-user-test-device-pci` the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.vm.qemu import QemuError

if TYPE_CHECKING:
    from hesper.api.gpu import Size
    from hesper.vm.qemu import Qemu

DEVICE = "vhost-user-gpu-pci"
SHARED = "hostmem"
"""Property of QEMU's own virtio-gpu for the size of the memory; the device has to have it too."""
UNTOLD = ("none", "egl-headless")
"""Displays that are not told whether to use OpenGL."""
BLOB = "blob"
"""Property that switches on what is shared in it, which is off by default."""


@dataclass(frozen=True, kw_only=True)
class QemuWindow:
    """How QEMU shows the screens."""

    kind: str
    """As for QEMU's `-display`."""
    scanouts: int
    size: Size
    """Of the first screen, at first."""
    hostmem: int
    """Bytes of guest address space to share memory in; 0: the device has none."""
    blob: bool = False
    """Whether that has to be switched on."""

    @property
    def properties(self) -> str:
        """The device's own, as for QEMU's `-device`."""
        width, height = self.size
        # QEMU offers the guest what its own queues can do, whatever this device's can.
        text = f"max_outputs={self.scanouts},xres={width},yres={height},queue_reset=off"
        if self.hostmem:
            text += f",{SHARED}={self.hostmem}"
        return f"{text},{BLOB}=on" if self.blob else text

    @property
    def arguments(self) -> list[str]:
        """What tells QEMU to show them."""
        # Without OpenGL it refuses to show a device of this kind.
        is_said = self.kind.partition(",")[0] in UNTOLD or ",gl=" in self.kind
        return ["-display", self.kind if is_said else f"{self.kind},gl=on"]


def qemu_window(qemu: Qemu, kind: str, *, scanouts: int, size: Size, hostmem: int) -> QemuWindow:
    """Describe QEMU's display.  Raises `QemuError` where this QEMU cannot have it."""
    if not scanouts:
        raise QemuError("there is no screen to show: the GPU only renders")
    name = qemu.command[-1]
    # Asked for and not told by the version: whoever builds QEMU may have added it.
    properties = re.findall(r"^ *([\w-]+)=", qemu.ask("-device", f"{DEVICE},help"), re.MULTILINE)
    if SHARED not in properties:
        raise QemuError(
            f"it needs a QEMU whose {DEVICE} shares memory with guests (property {SHARED}), which"
            f" {name} has not, nor any QEMU up to 11.1; VNC, the web page and --window show the"
            " screens without"
        )
    known = re.findall(r"^[a-z-]+$", qemu.ask("-display", "help"), re.MULTILINE)
    if kind.partition(",")[0] not in known:
        raise QemuError(
            f"{name} has no display {kind}; it has {', '.join(known) or 'none'}"
            " (Debian has others in qemu-system-gui)"
        )
    return QemuWindow(
        kind=kind, scanouts=scanouts, size=size, hostmem=hostmem, blob=BLOB in properties
    )
