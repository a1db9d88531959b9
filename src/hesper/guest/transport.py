"""Rings.  The other transport commands are the kernel's alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.handlers import handles
from hesper.kernel.errors import ProtocolError

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.kernel.handlers import Call

SHORTEST_ALIVE_INTERVAL = 10_000
"""Microseconds: a guest that wants to see ALIVE more often than that does not get it."""


@handles("vkCreateRingMESA")
def create_ring(context: Context, call: Call) -> None:
    """Start a ring, with a sign of life where the guest wants one."""
    _only_outside_rings(call)
    if len(context.engine.rings) >= context.limits.rings:
        raise ProtocolError(f"more than {context.limits.rings} rings (--limit rings)")
    info = call.args.pCreateInfo
    monitor = info.find_("VkRingMonitorInfoMESA")
    interval = 0
    if monitor is not None:
        interval = monitor.maxReportingPeriodMicroseconds
        if not interval:
            raise ProtocolError("VkRingMonitorInfoMESA asks for a period of 0")
        interval = max(interval, SHORTEST_ALIVE_INTERVAL)
    priority = info.find_("VkRingPriorityInfoMESA")
    # The nice value of the guest's thread whose ring it is.
    nice = priority.priority if priority is not None else 0
    context.engine.rings.create(call.args.ring, info, alive_interval_us=interval, nice=nice)


@handles("vkDestroyRingMESA")
def destroy_ring(context: Context, call: Call) -> None:
    """Stop a ring."""
    _only_outside_rings(call)
    context.engine.rings.destroy(call.args.ring)


def _only_outside_rings(call: Call) -> None:
    if call.ring is not None:
        raise ProtocolError(f"{call.name} came over a ring")
