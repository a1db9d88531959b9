"""The Vulkan loader, and the variables that make it load one driver and nothing else."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping
from pathlib import Path

LOADER_NAMES = ("libvulkan.so.1", "libvulkan.1.dylib")
"""What the loader is called, on Linux and on macOS."""

LOADER_FOLDERS = ("/opt/homebrew/lib", "/usr/local/lib")
"""Where Homebrew and the LunarG SDK's installer put it, outside dlopen's own search."""


@functools.cache
def find_loader() -> str | None:
    """What to dlopen for the Vulkan loader, or None when there is none."""
    candidates = list(LOADER_NAMES)
    folders = [*LOADER_FOLDERS]
    if os.environ.get("VULKAN_SDK"):
        folders.insert(0, os.path.join(os.environ["VULKAN_SDK"], "lib"))
    candidates += [os.path.join(folder, name) for folder in folders for name in LOADER_NAMES]
    for candidate in candidates:
        try:
            # The loader opens no driver before the first instance is asked for.
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return candidate
    return None


MOLTENVK = {
    "MVK_CONFIG_LOG_LEVEL": "1",
    "MVK_CONFIG_SYNCHRONOUS_QUEUE_SUBMITS": "0",
    "MVK_CONFIG_MAX_ACTIVE_METAL_COMMAND_BUFFERS_PER_QUEUE": "512",
}
"""How MoltenVK is to be, unless the user has said: errors alone are logged, and not what it is, by
every worker; a ring's thread does not encode what it submits; and a queue takes more than 64
submissions before one has to wait.  Source: its `MoltenVK_Configuration_Parameters.md`; tried on no
Mac."""


def driver_environment(
    manifest: Path, library_path: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """Variables to set before the loader is opened, so that it sees `manifest` alone.

    Implicit layers (overlays, device selection) are for programs with a window; they stay out
    unless the user has said otherwise.  Layers named in `VK_INSTANCE_LAYERS` still work.
    """
    path = os.path.abspath(manifest)
    variables = {"VK_DRIVER_FILES": path, "VK_ICD_FILENAMES": path, "VK_ADD_DRIVER_FILES": ""}
    if "VK_LOADER_LAYERS_DISABLE" not in environ:
        variables["VK_LOADER_LAYERS_DISABLE"] = "~implicit~"
        variables["NODEVICE_SELECT"] = "1"  # loaders before 1.3.234 do not know the filter
    if "moltenvk" in os.path.basename(library_path).lower():
        variables |= {name: value for name, value in MOLTENVK.items() if name not in environ}
    return variables
