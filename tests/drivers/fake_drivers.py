"""Fake Vulkan drivers over lavapipe: built once, one manifest for each mode and set of faults.

`python tests/drivers/fake_drivers.py FOLDER MODE [RULE...]` makes one by hand and prints its
manifest; run again with other rules, it switches programs that use the driver already.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
MODES = ("moltenvk", "kosmickrisp", "discrete", "discrete-export")
"""All but `plain`, which has no rules of its own."""
METAL = ("moltenvk", "kosmickrisp")
"""Those with pages of 16 KiB."""

_CONTROL_BYTES = 4096
_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC")
_CACHE = Path(os.environ.get("HESPER_CACHE") or Path(tempfile.gettempdir())) / "hesper-fake-drivers"


def library() -> Path:
    """Build the driver, or find it built from these very sources."""
    files = sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.S"), *SOURCES.glob("*.h")])
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    digest.update(" ".join((*_FLAGS, platform.machine(), str(os.geteuid()))).encode())
    built = _CACHE / digest.hexdigest()[:16] / "libfake.so"
    built.parent.mkdir(parents=True, exist_ok=True)
    with (built.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            part = built.with_suffix(".part")
            sources = [str(file) for file in files if file.suffix != ".h"]
            command = [os.environ.get("CC", "cc"), *_FLAGS, "-shared", "-fvisibility=hidden"]
            command += [*sources, "-ldl", "-lpthread", "-o", str(part)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"the fake drivers cannot be built:\n{done.stderr}")
            part.rename(built)
    return built


def lavapipe_library(manifest: Path | None = None) -> str:
    """What the manifest of the machine's lavapipe (or `manifest`) names."""
    if manifest is None:
        found = sorted(Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json"))
        if not found:
            raise FileNotFoundError("no lavapipe; scripts/test installs it")
        manifest = found[0]
    path = json.loads(manifest.read_text())["ICD"]["library_path"]
    return str(manifest.parent / path) if "/" in path else path


@dataclass(frozen=True)
class FakeDriver:
    """One driver in a folder of its own."""

    folder: Path
    mode: str
    lavapipe: str
    """The library that it loads, as its programs see it."""
    is_processor: bool = False
    """Whether the device says that it is one, as lavapipe does, and no GPU."""
    places: tuple[int, int] = (0, 0)
    """What buffers' places in memory and descriptors' in buffers are multiples of; 0: as ever."""

    @property
    def manifest(self) -> Path:
        """For the Vulkan loader, and for `hesper serve --driver`."""
        return self.folder / f"{self.mode}.json"

    def fault(self, *rules: str) -> None:
        """Have these calls fail from now on, and no others; counts begin anew.

        A rule is `COMMAND CALLS ACTION`; README.md has them.  Programs that use the driver
        already hear of it with their next call.
        """
        processor = ["processor"] if self.is_processor else []
        places = [f"places {self.places[0]} {self.places[1]}"] if any(self.places) else []
        lines = [f"mode {self.mode}", f"lavapipe {self.lavapipe}", *processor, *places, *rules]
        body = "".join(f"{line}\n" for line in lines).encode()
        control = os.open(self.folder / "control", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            old = os.pread(control, 8, 0)
            number = int(old) + 1 if old.strip(b"\0") else 1
            os.pwrite(control, (b"\n" + body).ljust(_CONTROL_BYTES - 8, b"\0"), 8)
            # Last: programs look at it to see that there is something new.
            os.pwrite(control, b"%08d" % number, 0)
        finally:
            os.close(control)


def make_driver(
    folder: Path,
    mode: str,
    rules: Sequence[str] = (),
    *,
    lavapipe: str | None = None,
    is_processor: bool = False,
    places: tuple[int, int] = (0, 0),
) -> FakeDriver:
    """Make the driver of a mode in `folder`; `lavapipe` where its programs see another path."""
    folder.mkdir(parents=True, exist_ok=True)
    driver = FakeDriver(folder, mode, lavapipe or lavapipe_library(), is_processor, places)
    # A copy: two modes in one process are two libraries, and the control file lies beside each.
    copy = folder / "libfake.so"
    with contextlib.suppress(FileNotFoundError):
        copy.unlink()
    shutil.copy(library(), copy)
    icd = {"library_path": "./libfake.so", "api_version": "1.4.0"}
    driver.manifest.write_text(json.dumps({"file_format_version": "1.0.1", "ICD": icd}))
    driver.fault(*rules)
    return driver


def manifest(mode: str, faults: Sequence[str] = ()) -> Path:
    """Make a driver in a new folder; its manifest."""
    return make_driver(Path(tempfile.mkdtemp(prefix="hesper-fake-")), mode, faults).manifest


if __name__ == "__main__":
    _folder, _mode, *_rules = sys.argv[1:]
    print(make_driver(Path(_folder), _mode, _rules).manifest)
