"""Private data: the object it hangs on travels as a bare number.

The kernel resolves handles by their type in the registry; `objectHandle` of these two commands
is a `uint64_t` there, so the guest id it holds is resolved here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.handlers import handles
from hesper.kernel.errors import ProtocolError
from hesper.protocol import summary
from hesper.vk.enumerants import VK_ERROR_OUT_OF_HOST_MEMORY

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.kernel.handlers import Call

DATUM_COST = 64
"""Bytes that a driver keeps for what is set, once for each time it is: until the slot is gone."""


@handles("vkSetPrivateData", "vkGetPrivateData")
def private_data(context: Context, call: Call) -> None:
    """Put the host's handle where the guest's id stands.

    Raises ProtocolError when there is no such object of that VkObjectType on the device.
    """
    found = context.engine.objects.lookup(call.args.objectHandle)
    wanted = call.args.objectType
    if found is None or summary().handles.get(found.type) != wanted or found.device != call.device:
        raise ProtocolError(f"object {call.args.objectHandle} is no object of type {wanted}")
    call.args.objectHandle = found.handle
    if call.name == "vkSetPrivateData" and not context.engine.ledger.charge(
        call.id("privateDataSlot"), DATUM_COST
    ):
        raise VulkanError(VK_ERROR_OUT_OF_HOST_MEMORY, "the memory limit is reached")
    call.run()
