"""How large the GPU's window in a guest's address space can be: by what the accelerator gives.

The window is a PCI BAR: it lies at a multiple of its size, beside the guest's memory, and what else
the device has lies behind it: both are behind one bridge.  Firmware that finds no place for them
leaves the device without, and the guest has no GPU.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hesper.portable import control, is_macos

if TYPE_CHECKING:
    from hesper.vm.machine import Machine
    from hesper.vm.qemu import Qemu

LOW_WINDOW = 256 << 20
"""Bytes that there is room for below 4 GiB on each of the machines."""
ARM_HIGH = 1 << 39
"""QEMU's `virt` has as much for 64-bit BARs, at a multiple of that; below 40 bits, nothing
(hw/arm/virt.c: `extended_memmap`, VIRT_HIGH_PCIE_MMIO)."""
BESIDE = 1 << 20
"""Bytes behind the window: no less can a bridge pass on."""
PC_LOW_MEMORY = 2 << 30
"""What a `q35` has of its memory below 4 GiB, at least; the rest follows at 4 GiB."""
TCG_BITS = {"x86_64": 40, "aarch64": 48}
"""Of the processor `max` (target/i386/cpu.h: TCG_PHYS_ADDR_BITS; Arm's has 52, of which 48 are
sure)."""
HVF_BITS = 36
"""What Hypervisor.framework gives a machine that asks for nothing."""
_CPUINFO = Path("/proc/cpuinfo")
_HYPERVISOR = "/System/Library/Frameworks/Hypervisor.framework/Hypervisor"


def address_bits(machine: Machine, qemu: Qemu) -> int:
    """How many bits the guest's physical addresses have."""
    said = _phys_bits(machine.extra)
    if said:
        return said
    accelerator = machine.accelerator or qemu.accelerator
    if accelerator == "tcg":
        return TCG_BITS[machine.architecture]
    if accelerator == "hvf":
        return _hvf_bits(machine.architecture)
    return _host_bits()


def largest_window(architecture: str, bits: int, memory: int) -> int:
    """Bytes, a power of two, of the largest window beside `memory` bytes of the guest's."""
    end = 1 << bits
    if architecture == "aarch64":
        return ARM_HIGH // 2 if end >= 2 * ARM_HIGH else LOW_WINDOW
    top = (4 << 30) + max(memory - PC_LOW_MEMORY, 0)
    size = end // 2
    while size > LOW_WINDOW and -(-top // size) * size + size + BESIDE > end:
        size //= 2
    return size


def _phys_bits(extra: Sequence[str]) -> int:
    """What the user's own arguments for QEMU say; 0 when they do not."""
    found = re.findall(r"phys-bits=(\d+)", " ".join(extra))
    return int(found[-1]) if found else 0


def _host_bits() -> int:
    """Those of the host's processor, which KVM hands on; 40 where nobody says."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 40
    found = re.search(r"^address sizes\s*: (\d+) bits physical", text, re.MULTILINE)
    return int(found[1]) if found else 40


def _hvf_bits(architecture: str) -> int:
    """What Hypervisor.framework can give: from macOS 13 on Apple Silicon one can ask."""
    if not is_macos():
        return HVF_BITS
    if architecture == "x86_64":
        return (
            int.from_bytes(control("machdep.cpu.address_bits.physical")[:4], "little") or HVF_BITS
        )
    bits = ctypes.c_uint32(0)
    try:
        # QEMU takes as many as it needs, since 9.2.
        failed = ctypes.CDLL(_HYPERVISOR).hv_vm_config_get_max_ipa_size(ctypes.byref(bits))
    except (OSError, AttributeError):
        return HVF_BITS
    return HVF_BITS if failed else max(bits.value, HVF_BITS)
