"""What a process may still do once a guest has taken it over: layers, one file each.

`worker.begin` and `worker.confine` are what a worker calls, `template.enclose` what the process
does that workers are forked from, `helper.harden` a process that no guest is in; `state.layers`
says what is in force here.  What a driver needs is in `needs.toml`, a line each.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["on", "report", "off"]
"""`report`: what would be refused happens, and is logged."""

MODES: tuple[Mode, ...] = ("on", "report", "off")
