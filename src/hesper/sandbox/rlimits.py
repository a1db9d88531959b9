"""How much of the system a worker may take: POSIX's limits of a process."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from hesper.portable import processors
from hesper.sandbox.system import has_sanitizer

if TYPE_CHECKING:
    from hesper.sandbox.needs import Needs

_GIB = 1 << 30
_STACK, _HEAP = 8 << 20, 128 << 20
"""Addresses that glibc reserves for a thread's stack, and for a heap of some threads."""
_DESCRIPTORS = 4096
"""Besides those of resources and rings: the driver's, of fences and exported memory."""
_FILE = _GIB
"""Bytes of a file: what a shader cache may grow to by default."""
THREADS = 1 << 15
"""Threads of all workers of a server together, where they are counted apart from the user's own."""


def limit(needs: Needs, memory: int, resources: int, rings: int) -> None:
    """Bound addresses, descriptors and files.

    memory, resources, rings: the client's limits (`hesper.limits`).
    """
    descriptors = resources + rings + _DESCRIPTORS
    _lower(resource.RLIMIT_NOFILE, descriptors)
    # Of memfds, too, which hold the client's memory.
    _lower(resource.RLIMIT_FSIZE, max(memory, _FILE))
    addresses = address_space(needs, memory, rings)
    if addresses:
        _lower(resource.RLIMIT_AS, addresses)


def address_space(needs: Needs, memory: int, rings: int) -> int:
    """Bytes of addresses that a worker may map; 0 where that cannot be bounded.

    What a client allocates may be mapped twice, by the driver and for the client.
    """
    share = max((need.address_space for need in needs), default=0)
    if not share or has_sanitizer():
        return 0
    heaps = 8 * (os.cpu_count() or processors()) * _HEAP  # glibc has 8 a processor at most
    return 2 * memory + share * _GIB + heaps + rings * _STACK


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
