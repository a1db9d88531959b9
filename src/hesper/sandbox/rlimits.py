"""How much of the system a worker may take: POSIX's limits of a process."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from hesper.sandbox.system import has_sanitizer

if TYPE_CHECKING:
    from hesper.sandbox.needs import Needs

_GIB = 1 << 30
_STACK = 8 << 20
"""Bytes of addresses that a thread's stack takes, as systems have it by default."""
_HEAP, _HEAPS = 64 << 20, 256
"""What glibc reserves for each of the heaps that threads share, and how many of these it makes at
most: 8 a processor, and nobody has more than 32 at work."""
_DESCRIPTORS = 8192
"""Besides those that a client is allowed: the driver's, of fences and exported memory."""
_FILE = _GIB
"""Bytes of a file: what a shader cache may grow to by default."""
THREADS = 1 << 15
"""Threads of all workers of a server together, where they are counted apart from the user's own."""


def limit(needs: Needs, memory: int, threads: int, descriptors: int) -> None:
    """Bound addresses, descriptors and files: by what a client may have (`hesper.limits`)."""
    _lower(resource.RLIMIT_NOFILE, descriptors + _DESCRIPTORS)
    # Of memfds, too, which hold the client's memory.
    _lower(resource.RLIMIT_FSIZE, max(memory, _FILE))
    bound = address_space(needs, memory, threads)
    if bound:
        _lower(resource.RLIMIT_AS, bound)


def address_space(needs: Needs, memory: int, threads: int) -> int:
    """Bytes of addresses that a worker may map; 0 where that cannot be bounded.

    Memory counts twice: it may be mapped here and by the driver.
    """
    share = max((need.address_space for need in needs), default=0)
    if not share or has_sanitizer():
        return 0
    return 2 * memory + threads * _STACK + _HEAPS * _HEAP + share * _GIB


def bound_threads() -> None:
    """Bound the threads of all workers; only in a namespace of users of their own."""
    _lower(resource.RLIMIT_NPROC, THREADS)


def _lower(which: int, wanted: int) -> None:
    """Lower a limit for good; leave one that is lower already."""
    soft, hard = resource.getrlimit(which)
    unlimited = resource.RLIM_INFINITY
    known = [each for each in (soft, hard, wanted) if each != unlimited]
    if min(known) == wanted:
        resource.setrlimit(which, (wanted, wanted))
