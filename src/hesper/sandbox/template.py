"""What the process does that workers are forked from: all that they have in common."""

from __future__ import annotations

import os
from collections.abc import Callable

from hesper.portable import is_linux
from hesper.sandbox import Mode, files, namespaces, process, rlimits, seccomp, worker
from hesper.sandbox.needs import table


def enclose(mode: Mode, say: Callable[[str], None]) -> None:
    """Have all processes that are forked from this one apart, and give up what none of them needs.

    For a process of one thread.  say: told what is not to be had here, and why.
    """
    if mode != "on" or not is_linux():
        return
    files.common()  # before each worker looks for itself
    table()
    process.forbid_cores()
    why = namespaces.obstacle()
    if why:
        say(why)
    else:
        namespaces.enter(namespaces.OF_CHILDREN)
        rlimits.bound_threads()
    process.forbid_privileges()
    if os.geteuid() != 0 or not process.needs_root(process.own_files()):
        process.drop_capabilities()
    if not seccomp.obstacle():
        seccomp.install(seccomp.helper_filter())
    worker.inherit(*([] if why else [namespaces.begin_processes()]))
