"""The device in libvirt's XML."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from hesper.vm.machine import gpu_arguments

_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


def libvirt_xml(socket: Path) -> str:
    """Return what to put into a domain: shared memory, no other video, the device."""
    arguments = "\n".join(
        f"    <qemu:arg value={quoteattr(argument)}/>" for argument in gpu_arguments(socket)
    )
    return f"""<domain type="kvm" xmlns:qemu="{_NAMESPACE}">
  <memoryBacking>
    <source type="memfd"/>
    <access mode="shared"/>
  </memoryBacking>
  <devices>
    <video><model type="none"/></video>
  </devices>
  <qemu:commandline>
{arguments}
  </qemu:commandline>
</domain>"""
