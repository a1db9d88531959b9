"""How much memory there is, for this process and in all."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

from hesper.portable.platform import is_linux, libc


def physical_memory() -> int:
    """Bytes of memory this host has, or, where that is less, the control group of this process."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([there, *_group_limits("/proc/self/cgroup", "/sys/fs/cgroup")])


def _group_limits(groups: str, mounted: str) -> Iterator[int]:
    """Bytes that the control groups of this process may have, and those that they lie in.

    groups: the file by which the kernel tells (`cgroups(7)`); mounted: where the hierarchies are.
    """
    if not is_linux():
        return
    with contextlib.suppress(OSError):
        with open(groups, encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        for _, controllers, path in filter(lambda line: len(line) == 3, lines):
            if not controllers:
                base, name = mounted, "memory.max"
            elif "memory" in controllers.split(","):
                base, name = f"{mounted}/memory", "memory.limit_in_bytes"
            else:
                continue
            # In a container the path may begin above what is mounted there.
            parts = [part for part in path.split("/") if part and part != ".."]
            for depth in range(len(parts) + 1):
                with contextlib.suppress(OSError, ValueError):
                    place = "/".join([base, *parts[:depth], name])
                    with open(place, encoding="ascii") as limit:
                        yield int(limit.read())  # "max" is no number


def own_memory(pid: int) -> int:
    """Bytes of memory that a process has for itself or shares, besides files; 0: nobody knows."""
    found = _numbers(f"/proc/{pid}/status", {"RssAnon", "RssShmem"})
    return sum(found.values()) * 1024


def available_memory() -> int:
    """Bytes of memory that programs could still have; all there is where the system is silent."""
    found = _numbers("/proc/meminfo", {"MemAvailable"})
    return found["MemAvailable"] * 1024 if found else physical_memory()


def give_memory_back() -> None:
    """Give the system what this process has freed, as far as its C library keeps it and can.

    glibc does (`malloc_trim(3)`); others mostly give back by themselves.
    """
    trim = getattr(libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def never_garbage() -> None:
    """Take all that there is now in this process for what stays: Python looks for none among it.

    For programs whose loops others wait for, once they are up: to look through all their modules
    takes tens of milliseconds, and when that is, a guest has a say in.
    """
    gc.collect()
    gc.freeze()


def _numbers(path: str, wanted: set[str]) -> dict[str, int]:
    """Numbers of a file of /proc, by their names."""
    found = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    for name, _, value in (line.partition(":") for line in lines):
        if name in wanted and value.split()[:1]:
            found[name] = int(value.split()[0])
    return found
