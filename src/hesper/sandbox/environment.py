"""The variables that workers, and the processes they are made by, find around them.

A worker's memory holds what its process was started with, and so does `/proc/PID/environ`: what
must not be read there has to be left out when the process starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_ALLOWED = re.compile(
    r"""
      (HOME|LANG|LANGUAGE|LC_[A-Z]+|TZ|PATH|TMPDIR|USER|LOGNAME)
    | XDG_(CACHE|CONFIG|DATA|STATE)_(HOME|DIRS) | XDG_(CONFIG|DATA)_DIRS | XDG_RUNTIME_DIR
    # Hesper, Python, and what they are looked at with.
    | HESPER_\w+ | PYTHON(HOME|PATH|MALLOC|DONTWRITEBYTECODE|FAULTHANDLER|UNBUFFERED|WARNINGS
      |SAFEPATH|NOUSERSITE|USERBASE|UTF8|COERCECLOCALE|HASHSEED|DEVMODE|TRACEMALLOC|PYCACHEPREFIX)
    | LD_(LIBRARY_PATH|PRELOAD|DEBUG|BIND_NOW|AUDIT) | DYLD_\w+ | MALLOC_\w+ | GLIBC_TUNABLES
    | (A|L|M|T|UB)SAN_(OPTIONS|SYMBOLIZER_PATH)
    # The Vulkan loader, and layers.
    | VK_(DRIVER_FILES|ADD_DRIVER_FILES|ICD_FILENAMES|INSTANCE_LAYERS|LOADER_\w+|LAYER_\w+
      |ADD_LAYER_PATH|IMPLICIT_LAYER_PATH|ADD_IMPLICIT_LAYER_PATH|KHRONOS_\w+) | NODEVICE_SELECT
    | VULKAN_SDK | DISABLE_VK_\w+
    # Drivers: Mesa's, NVIDIA's, AMD's, Apple's.
    | (MESA|DRI|LIBGL|GALLIUM|GALLIVM|LP|LVP|DRAW|TGSI|NIR|SPIRV|DISK_CACHE|ZINK|UTIL|LLVM
      |RADV|ACO|AMD|AMDGPU|AMDVLK|RADEON|ROC|HSA|HIP|INTEL|ANV|HASVK|NVK|NAK|NOUVEAU|TU|FD|IR3|PAN
      |PANVK|BIFROST|V3D|V3DV|POWERVR|PVR|ASAHI|AGX|HK|KK|MESA_KK|VN|VTEST)_\w+
    | NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES|DRIVER_VERSION|DISABLE_REQUIRE|REQUIRE_\w+)
    | __(GL|EGL|NV|VK)\w* | CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|CACHE_\w+|MODULE_LOADING)
    | GPU_\w+ | (MVK|MTL|METAL)_\w+
    """,
    re.VERBOSE,
)
_SECRET = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|AUTH|COOKIE")
"""In a name: what is so called stays out, whatever it begins with."""


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """Keep what Hesper, Python and drivers read."""
    return {
        name: value
        for name, value in environ.items()
        if _ALLOWED.fullmatch(name) and not _SECRET.search(name.upper())
    }
