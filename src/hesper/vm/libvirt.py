"""The machine in libvirt's XML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from hesper.vm.agent_wire import PORT_NAME
from hesper.vm.machine import MACHINES, gpu_arguments, monitor_arguments

if TYPE_CHECKING:
    from hesper.vm.qemu_window import QemuWindow

_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


def libvirt_xml(  # noqa: PLR0913  all but two are given by name
    socket: Path,
    monitor: Path,
    *,
    architecture: str,
    memory: int,
    accelerator: str = "kvm",
    emulator: str | None = None,
    has_screens: bool = True,
    agent: Path | None = None,
    window: QemuWindow | None = None,
) -> str:
    """Return a domain that can be defined and started; it lacks nothing but a disk.

    socket, monitor, agent: where `hesper gpu` listens.  memory: bytes.
    accelerator: kvm, hvf or tcg.  emulator: QEMU's path; None: libvirt's choice.
    has_screens: whether the guest's screens are Hesper's device's, and none another's.
    window: how QEMU shows them, which is by SPICE here; None: it does not.
    """
    arguments = "\n".join(
        f"    <qemu:arg value={quoteattr(argument)}/>"
        for argument in [*gpu_arguments(socket, window), *monitor_arguments(monitor)]
    )
    kind, cpu = ("qemu", "maximum") if accelerator == "tcg" else (accelerator, "host-passthrough")
    # The firmware of a PC has to be asked for; the others have no other.
    os = '<os firmware="efi">' if architecture == "aarch64" else "<os>"
    # The GPU survives the other kind of sleep.
    sleep = '\n  <pm><suspend-to-mem enabled="no"/></pm>' if architecture == "x86_64" else ""
    lines = [f"<emulator>{escape(emulator)}</emulator>"] if emulator else []
    lines += [
        "<!-- Your disk:",
        '<disk type="file"><driver name="qemu" type="qcow2"/><source file="..."/>',
        '<target dev="vda" bus="virtio"/></disk> -->',
        '<interface type="user"><model type="virtio"/></interface>',
        '<controller type="usb" model="qemu-xhci"/>',
        '<input type="tablet" bus="usb"/>',
        '<input type="keyboard" bus="usb"/>',
        '<input type="keyboard" bus="virtio"/>',
        '<serial type="pty"/>',
        *(_agent_port(agent) if agent is not None else ()),
        *(['<video><model type="none"/></video>'] if has_screens else []),
        *(_spice() if window is not None else ()),
    ]
    devices = "\n".join(f"    {line}" for line in lines)
    return f"""<domain type={quoteattr(kind)} xmlns:qemu="{_NAMESPACE}">
  <name>hesper</name>
  <memory unit="MiB">{memory >> 20}</memory>
  <memoryBacking>
    <source type="memfd"/>
    <access mode="shared"/>
  </memoryBacking>
  <vcpu>2</vcpu>
  {os}
    <type arch={quoteattr(architecture)} machine={quoteattr(MACHINES[architecture])}>hvm</type>
  </os>
  <features><acpi/></features>
  <cpu mode={quoteattr(cpu)}/>{sleep}
  <devices>
{devices}
  </devices>
  <qemu:commandline>
{arguments}
  </qemu:commandline>
</domain>"""


def _spice() -> list[str]:
    """What virt-manager shows on this machine; with OpenGL, as the device wants it."""
    return ['<graphics type="spice"><listen type="none"/><gl enable="yes"/></graphics>']


def _agent_port(socket: Path) -> list[str]:
    return [
        f'<channel type="unix"><source mode="connect" path={quoteattr(str(socket))}/>',
        f'<target type="virtio" name="{PORT_NAME}"/></channel>',
    ]
