"""UEFI firmware for guests, found through the descriptors that QEMU's packages install.

Source: QEMU's `docs/interop/firmware.json`.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hesper.errors import HesperError

_UNWANTED = {"secure-boot", "enrolled-keys", "requires-smm"}
"""Features of firmware that boots no system of one's own, or needs a special machine."""


class FirmwareError(HesperError):
    """There is no UEFI firmware; the text says what to install."""


@dataclass(frozen=True)
class Firmware:
    """UEFI firmware in two flash chips: code, and variables that the guest changes."""

    code: Path
    variables: Path
    """Template of the second."""

    def copy_variables(self, path: Path) -> None:
        """Make the guest's own variables at `path`, unless they are there."""
        if not path.exists():
            shutil.copyfile(self.variables, path)


def find_firmware(architecture: str, qemu: str) -> Firmware:
    """Return UEFI firmware for guests of `architecture`.

    qemu: the QEMU program, beside which Homebrew puts the descriptors.  Raises `FirmwareError`.
    """
    for folder in _folders(qemu):
        for path in sorted(folder.glob("*.json")):
            try:
                firmware = _read(json.loads(path.read_text(encoding="utf-8")), architecture)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a descriptor of another kind
            if firmware is not None:
                return firmware
    raise FirmwareError(
        f"there is no UEFI firmware for {architecture} guests: install it (Debian: ovmf or"
        " qemu-efi-aarch64; Homebrew's qemu has it)"
    )


def _folders(qemu: str) -> list[Path]:
    program = shutil.which(qemu)
    prefixes = [Path("/usr"), Path("/usr/local")]
    if program is not None:
        prefixes.insert(0, Path(os.path.realpath(program)).parent.parent)
    return [
        Path("/etc/qemu/firmware"),
        *(prefix / "share/qemu/firmware" for prefix in prefixes),
    ]


def _read(descriptor: dict[str, Any], architecture: str) -> Firmware | None:
    """Return the firmware if it is a plain UEFI for `architecture`."""
    features = set(descriptor.get("features", ()))
    if "uefi" not in descriptor["interface-types"] or features & _UNWANTED:
        return None
    if architecture not in {target["architecture"] for target in descriptor["targets"]}:
        return None
    mapping = descriptor["mapping"]
    if mapping["device"] != "flash" or mapping["executable"].get("format", "raw") != "raw":
        return None
    code = Path(mapping["executable"]["filename"])
    variables = Path(mapping["nvram-template"]["filename"])
    return Firmware(code, variables) if code.is_file() and variables.is_file() else None
