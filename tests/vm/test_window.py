"""The GPU's window in guests with few addresses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from guest_vm import Guest, exchange
from initramfs import Tree

from hesper.cli._gpu import DeviceOptions
from hesper.gpu.runner import GpuOptions
from hesper.vhost_user_gpu import VhostUserGpu
from hesper.vm import window
from hesper.vm.machine import Machine
from hesper.vm.qemu import Qemu
from hesper.vm.window import address_bits, largest_window

GIB = 1 << 30
QEMU = Qemu(["qemu-system-x86_64"])


def machine(architecture: str = "x86_64", **options: object) -> Machine:
    """A machine that is described, and not run."""
    return Machine(
        architecture=architecture,
        gpu_socket=Path("/gpu"),
        monitor_socket=Path("/qmp"),
        memory=GIB,
        cpus=1,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("architecture", "bits", "memory", "most"),
    [
        ("x86_64", 40, 4 * GIB, 256 * GIB),
        ("x86_64", 36, 4 * GIB, 16 * GIB),
        ("x86_64", 36, 40 * GIB, 8 * GIB),
        ("x86_64", 34, GIB, 4 * GIB),
        ("x86_64", 33, GIB, 2 * GIB),
        ("x86_64", 33, 4 * GIB, GIB),
        ("x86_64", 32, GIB, 256 << 20),
        # hvf before macOS 15.
        ("aarch64", 36, 4 * GIB, 256 << 20),
        ("aarch64", 40, 4 * GIB, 256 * GIB),
    ],
)
def test_it_lies_beside_the_memory(architecture: str, bits: int, memory: int, most: int) -> None:
    assert largest_window(architecture, bits, memory) == most


def test_the_accelerator_says_how_many_addresses_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address_bits(machine(accelerator="tcg"), QEMU) == 40
    assert address_bits(machine("aarch64", accelerator="hvf"), QEMU) == 36
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: x\naddress sizes\t: 46 bits physical, 48 bits virtual\n")
    monkeypatch.setattr(window, "_CPUINFO", cpuinfo)
    assert address_bits(machine(accelerator="kvm"), QEMU) == 46
    mine = machine(accelerator="kvm", extra=["-cpu", "host,phys-bits=36"])
    assert address_bits(mine, QEMU) == 36


def test_the_largest_is_there_in_a_guest_with_few_addresses(tree: Tree) -> None:
    """A `q35` of QEMU's wants 36 bits at least."""
    most = largest_window("x86_64", 36, GIB)
    with exchange(tree) as place:
        guest = Guest(place, extra=["-cpu", "max,phys-bits=36"])
        with VhostUserGpu(guest.gpu_socket, GpuOptions(window=most), lambda: None), guest:
            told = guest.run("dmesg | grep drm")
    assert re.search(rf"Host memory window: 0x[0-9a-f]+ \+{most:#x}", told)


def test_what_does_not_fit_is_made_to_or_refused() -> None:
    few = machine("aarch64", accelerator="hvf")
    fitting = DeviceOptions().fitting(few, QEMU)
    assert fitting.hostmem == "256M"
    assert DeviceOptions(hostmem="128M").fitting(few, QEMU).hostmem == "128M"
    with pytest.raises(ValueError, match=r"--hostmem 2G: .* 36 bits, which leave 256M"):
        DeviceOptions(hostmem="2G").fitting(few, QEMU)
    assert DeviceOptions().fitting(machine(accelerator="tcg"), QEMU) == DeviceOptions()
