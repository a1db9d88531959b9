"""macOS: one call with a profile, a text of Apple's sandbox language.

The call and the language are those that Apple's own programs use (`sandbox_init` in `sandbox.h`,
the profiles in `/System/Library/Sandbox/Profiles`).  Nothing here has ever run on a Mac: the
profile's text is tested, its effect is not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper.sandbox.landlock import Files

_LIBRARY = "/usr/lib/libsandbox.1.dylib"

_SERVICES = (
    "com.apple.MTLCompilerService",
    "com.apple.cvmsServ",
    "com.apple.gpumemd.source",
    "com.apple.logd",
    "com.apple.system.logger",
    "com.apple.system.notification_center",
)
"""What Metal talks to: its compiler, and what all programs log to."""

_DEVICES = (
    "AGXDeviceUserClient",
    "AGXCommandQueue",
    "AGXDevice",
    "AGXSharedUserClient",
    "IOAccelContext",
    "IOAccelContext2",
    "IOAccelDevice",
    "IOAccelDevice2",
    "IOAccelSharedUserClient",
    "IOAccelSharedUserClient2",
    "IOAccelSubmitter2",
    "IOSurfaceAcceleratorClient",
    "IOSurfaceRootUserClient",
)
"""Clients of the GPU's kernel drivers, Apple's and Intel's Macs'."""

_LIBRARIES = ("/System", "/usr/lib", "/usr/share", "/Library/Apple", "/opt/homebrew", "/usr/local")


def profile(files: Files) -> str:
    """Write the profile of a worker: nothing is allowed but what it says."""
    read = [*_LIBRARIES, *files.read, *files.write]
    lines = [
        "(version 1)",
        "(deny default)",
        "(allow process-info* (target self))",
        "(allow signal (target self))",
        "(allow sysctl-read)",
        "(allow system-sched)",
        "(allow ipc-posix-shm*)",
        "(allow file-read-metadata)",
        _rule("file-read*", "subpath", read),
        _rule("file-map-executable", "subpath", [*_LIBRARIES, *files.read]),
        _rule("file-read* file-write-data", "literal", ["/dev/null", "/dev/zero"]),
        _rule("file-read*", "literal", ["/dev/random", "/dev/urandom"]),
        _rule("file-write*", "subpath", files.write),
        _rule("mach-lookup", "global-name", _SERVICES),
        _rule("iokit-open", "iokit-user-client-class", _DEVICES),
        "(allow iokit-get-properties)",
    ]
    return "\n".join(filter(None, lines)) + "\n"


def _rule(what: str, kind: str, values: Sequence[str]) -> str:
    """Allow something with any of those values; nothing without one."""
    wanted = "".join(f"\n  ({kind} {_quoted(value)})" for value in dict.fromkeys(values))
    return f"(allow {what}{wanted})" if wanted else ""


def _quoted(text: str) -> str:
    """Write a string: the language has Scheme's."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def obey(text: str) -> None:
    """Obey a profile from now on, on all threads.  Raises `OSError`."""
    library = ctypes.CDLL(_LIBRARY)
    why = ctypes.c_char_p()
    library.sandbox_init.argtypes = [
        ctypes.c_char_p,
        ctypes.c_uint64,
        ctypes.POINTER(ctypes.c_char_p),
    ]
    if library.sandbox_init(text.encode(), 0, ctypes.byref(why)):
        reason = (why.value or b"").decode(errors="replace")
        raise OSError(f"sandbox_init: {reason}")
