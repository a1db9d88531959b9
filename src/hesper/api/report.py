"""What somebody who has a machine at hand can send to somebody who has none like it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

from hesper.api.drivers import drivers
from hesper.portable import (
    architecture,
    control,
    is_translated,
    page_size,
    physical_memory,
    processor_name,
    system,
)
from hesper.sandbox.environment import scrubbed

if TYPE_CHECKING:
    from hesper.api.diagnosis import Diagnosis

VERSION = 1
"""Of the report's layout."""
TOLD = re.compile(r"(VK|VULKAN|HESPER|MVK|MTL|METAL|MESA|LP|KK|VN|DYLD|LD|GALLIUM)_\w+")
"""Variables that matter; of all others not even the names are told."""
CONTROLS = (
    *("hw.model", "kern.osversion", "kern.hv_support", "hw.perflevel0.physicalcpu"),
    *("hw.perflevel1.physicalcpu", "hw.optional.arm64", "machdep.cpu.brand_string"),
)
"""What macOS's kernel is asked."""
_ASK_SECONDS = 20


def report(found: Diagnosis, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Gather what is known of this machine, for JSON.  Takes seconds, as drivers are asked.

    found: what `diagnose` has said.  The home folder's path is written `~`, and there is nothing
    else in it of who uses the machine.
    """
    listed = drivers(environ=environ)
    told = {
        "report": VERSION,
        "hesper": _version("hesper"),
        "python": f"{platform.python_version()} ({sys.executable})",
        "packages": _packages(),
        "system": system(),
        "architecture": architecture(),
        "translated": is_translated(),
        "processor": processor_name(),
        "processors": os.cpu_count(),
        "memory": physical_memory(),
        "page": {"system": os.sysconf("SC_PAGE_SIZE"), "used": page_size()},
        "controls": {name: _readable(value) for name in CONTROLS if (value := control(name))},
        "environment": {name: value for name, value in scrubbed(environ).items() if _is_told(name)},
        "able": found.able,
        "findings": [asdict(finding) for finding in found.findings],
        "drivers": [
            {**asdict(driver), "not_chosen": listed.why_not(driver)} for driver in listed.found
        ],
        "broken": listed.broken,
        "qemu": _qemu(),
    }
    home = environ.get("HOME") or ""
    return _without(told, home) if len(home) > 1 else told


def _is_told(name: str) -> bool:
    return TOLD.fullmatch(name) is not None


def _packages() -> dict[str, str]:
    """Versions of what Hesper depends on, where it is installed."""
    try:
        wanted = metadata.requires("hesper") or []
    except metadata.PackageNotFoundError:
        wanted = []
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted}
    return {name: version for name in sorted(names) if (version := _version(name))}


def _version(package: str) -> str:
    """Its version; empty where it is not installed, as in a source tree."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _readable(value: bytes) -> str | int:
    """Text as text, and a number of four or eight bytes as a number."""
    text = value.rstrip(b"\0")
    if text and text.isascii() and text.decode().isprintable():
        return text.decode()
    return int.from_bytes(value, "little")


def _qemu() -> dict[str, str]:
    """What the QEMU for this machine's guests says of itself; nothing without one."""
    program = shutil.which(f"qemu-system-{architecture()}")
    if program is None:
        return {}
    answers = {"program": program}
    for name, question in (("version", ["--version"]), ("accelerators", ["-accel", "help"])):
        try:
            done = subprocess.run(
                [program, *question],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_ASK_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            answers[name] = f"no answer: {error}"
        else:
            answers[name] = done.stdout.strip()
    return answers


def _without(told: Any, home: str) -> Any:
    """Write `~` for the home folder, wherever it stands."""
    if isinstance(told, str):
        return told.replace(home, "~")
    if isinstance(told, Mapping):
        return {_without(key, home): _without(value, home) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [_without(each, home) for each in told]
    return told
