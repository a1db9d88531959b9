"""The calls of Linux' that no module of Python's makes."""

from __future__ import annotations

import ctypes
import functools
import os

from hesper.portable import architecture
from hesper.sandbox.calls import numbers

NO_NEW_PRIVS = 38
"""PR_SET_NO_NEW_PRIVS (`linux/prctl.h`)."""
DUMPABLE = 4
"""PR_SET_DUMPABLE."""
NAME = 15
"""PR_SET_NAME."""
PTRACER = 0x59616D61
"""PR_SET_PTRACER."""


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | ctypes.Array[ctypes.c_char] | bytes | None) -> int:
    """Make a system call, by its name.  Raises `OSError`."""
    number = numbers(architecture()).get(name)
    if number is None:
        raise OSError(f"no {name} on {architecture()}")
    words = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    function = _libc().syscall
    function.restype = ctypes.c_long
    result: int = function(ctypes.c_long(number), *words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def prctl(option: int, *values: int | bytes) -> int:
    """Make that call.  Raises `OSError`."""
    return call("prctl", option, *values, *[0] * (4 - len(values)))


def has_sanitizer() -> bool:
    """Whether this process is built with one that reserves addresses without end."""
    return any(hasattr(_libc(), name) for name in ("__asan_init", "__tsan_init", "__msan_init"))
