"""Run a guest with what only Debian sid has, and print what it shows.

    python tests/vm/record.py ROOT [--page-size 16384]

ROOT is what `scripts/client-root sid` has made: the newest kernel and Mesa, and llama.cpp's tests.
--page-size simulates a host with larger pages.  sid moves, so this is run by hand before a release,
and its answer kept.  Ends with 1 when something is not as it should be.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guest_vm import GpuGuest, compile_program, gpu_guest
from initramfs import Tree

BACKENDS = "usr/lib/x86_64-linux-gnu/ggml/backends0"
OPERATIONS = "usr/libexec/x86_64-linux-gnu/llama.cpp-tests/test-backend-ops"
PATIENCE = 1800.0
"""Seconds for one command; a guest that is emulated computes slowly."""


@dataclass(frozen=True)
class Check:
    """A command in the guest, and what it must print."""

    command: str
    wanted: str
    """Regular expression, for a line."""


CHECKS = (
    Check("uname -r", r"."),
    Check("dmesg | grep drm", r"\+context_init .*\+blob_alignment"),
    Check("vulkaninfo --summary | grep -E 'deviceName|driverInfo'", r"= Virtio-GPU Venus \("),
    Check("compute", r"^memory: ok"),
    Check("render 50", r"^frames: 50"),
    Check("virtgpu align", r"^align: "),
    Check("virtgpu maps 100", r"^maps: 100 ok"),
    Check("virtgpu time", r"^time: unmap"),
    # ggml leaves processors' Vulkan devices alone unless told which to take.
    Check(
        f"GGML_VK_VISIBLE_DEVICES=0 /{OPERATIONS} -o ADD 2>&1"
        " | grep -E 'Device desc|FAIL|tests passed|Backend Vulkan'",
        r"Backend Vulkan0: OK",
    ),
)


def programs(folder: Path) -> list[Path]:
    """Compile what the checks run."""
    return [compile_program(name, folder) for name in ("compute", "render", "virtgpu")]


def record(vm: GpuGuest, checks: Sequence[Check]) -> bool:
    """Run the checks and print what comes; returns whether all is well."""
    well = True
    for check in checks:
        print(f"$ {check.command}", flush=True)
        started = time.monotonic()
        text = vm.run(check.command, seconds=PATIENCE, check=False).rstrip()
        print(text)
        print(f"[{time.monotonic() - started:.1f} s]")
        if not re.search(check.wanted, text, re.MULTILINE):
            print(f"NOT AS IT SHOULD BE: no {check.wanted!r}")
            well = False
    return well


def main() -> int:
    """Boot, run, print; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--page-size", type=int)
    options = parser.parse_args()
    if options.page_size is not None:
        os.environ["HESPER_PAGE_SIZE"] = str(options.page_size)
    subprocess.run([Path(__file__).with_name("add-to-tree"), options.root], check=True)
    tree = Tree(options.root)
    backends = sorted((tree.root / BACKENDS).glob("*.so"))
    needed = ["usr/bin/vulkaninfo", OPERATIONS, *(f"{BACKENDS}/{file.name}" for file in backends)]
    with (
        tempfile.TemporaryDirectory() as folder,
        gpu_guest(tree, programs=programs(Path(folder)), from_tree=needed) as vm,
    ):
        return 0 if record(vm, CHECKS) else 1


if __name__ == "__main__":
    sys.exit(main())
