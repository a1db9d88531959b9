"""Starts a program that needs no file but its own: `python -m ...confined PROGRAM ARGUMENT...`.

An encoder's input is what a guest draws.  What the sandbox has for workers is taken where it is to
be had: no privileges, no network by TCP, nothing to write but its output.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys

from hesper.portable import is_linux
from hesper.sandbox import files, landlock, process, seccomp

ADDRESSES = 4 << 30
"""Bytes that an encoder may map; one of 7680x4320 needs a quarter."""
DESCRIPTORS = 64


def confine(program: str) -> None:
    """Give up what an encoder never needs; `program` is what is started next."""
    for which, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_AS, ADDRESSES),
    ):
        with contextlib.suppress(OSError, ValueError):  # macOS bounds no addresses
            resource.setrlimit(which, (most, most))
    process.give_up(hidden=False)
    if not is_linux():
        return
    with contextlib.suppress(OSError):
        folder = os.path.dirname(os.path.realpath(program))
        read = [*files.common(), program, os.path.realpath(program), folder]
        rules = landlock.make_rules(landlock.Files(read, ["/dev/null"]))
        try:
            landlock.obey(rules)
        finally:
            os.close(rules)
    if not seccomp.obstacle():
        seccomp.install(seccomp.helper_filter())


def main() -> None:
    """Be replaced by the program."""
    program, *arguments = sys.argv[1:]
    confine(program)
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main()
