"""What a machine has besides disks and a GPU: folders of this host, and USB devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

READ_ONLY = ":ro"
_USB_PRODUCT = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")
_USB_PLACE = re.compile(r"(\d{1,3})\.(\d{1,3})")


def escape(path: Path) -> str:
    """Write a path as the value of a QEMU option: commas count double."""
    return str(path).replace(",", ",,")


@dataclass(frozen=True)
class Share:
    """A folder of this host that the guest can mount."""

    path: Path
    tag: str
    """What the guest calls it."""
    read_only: bool = False

    def arguments(self) -> list[str]:
        """What QEMU is told.

        By 9p and not by vhost-user: QEMU tells such a device of all that is mapped, and could not
        start it again after a pause.
        """
        # The guest's files are this user's, whatever their owner is in the guest.
        options = f"local,id={self.tag},path={escape(self.path)},security_model=none"
        options += ",multidevs=remap" + (",readonly=on" if self.read_only else "")
        device = f"virtio-9p-pci,fsdev={self.tag},mount_tag={self.tag}"
        return ["-fsdev", options, "-device", device]


def parse_shares(texts: Sequence[str]) -> list[Share]:
    """Parse `DIR` or `DIR:ro`, each; the tags are `share`, `share2`, ...  Raises `ValueError`."""
    shares = []
    for number, text in enumerate(texts, 1):
        path = Path(text.removesuffix(READ_ONLY)).absolute()
        if not path.is_dir():
            raise ValueError(f"--share {text}: there is no such folder")
        tag = "share" if number == 1 else f"share{number}"
        shares.append(Share(path, tag, text.endswith(READ_ONLY)))
    return shares


def usb_arguments(text: str) -> list[str]:
    """Give the guest a USB device: `VENDOR:PRODUCT` or `BUS.DEVICE`, as lsusb shows them.

    Raises `ValueError`.
    """
    if match := _USB_PRODUCT.fullmatch(text):
        which = f"vendorid=0x{match[1]},productid=0x{match[2]}"
    elif match := _USB_PLACE.fullmatch(text):
        which = f"hostbus={int(match[1])},hostaddr={int(match[2])}"
    else:
        raise ValueError(f"--usb {text}: must be VENDOR:PRODUCT, as in 046d:c52b, or BUS.DEVICE")
    return ["-device", f"usb-host,{which}"]
