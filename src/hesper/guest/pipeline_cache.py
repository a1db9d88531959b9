"""Pipeline caches: what a guest brings back is what was handed out.

A driver reads a cache's data with little suspicion: it has written them itself.  So what a guest
gets carries a tag that only Hesper can make, and what comes without the right one never reaches the
driver: the cache begins empty, as Vulkan has it for data that do not fit.

The tag stands at the end, so that the data begin with Vulkan's header as ever.  The key is the host
user's (`isolation.cache_key`): what a guest has kept is good in its next context, too.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
from typing import TYPE_CHECKING

from hesper.guest.handlers import handles
from hesper.kernel.handlers import CACHE_TAG
from hesper.log import get_logger
from hesper.vk.enumerants import VK_INCOMPLETE, VK_SUCCESS

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.kernel.handlers import Call

log = get_logger(__name__)


@handles("vkCreatePipelineCache")
def create_pipeline_cache(context: Context, call: Call) -> None:
    """Make a cache of data that were handed out before, or an empty one."""
    device = context.device(call.id("device"))
    info = call.args.pCreateInfo
    size, address = info.initialDataSize, info.pointer_("pInitialData")
    if address and size:
        given = ctypes.string_at(address, size)
        data, tag = given[:-CACHE_TAG], given[-CACHE_TAG:]
        if data and hmac.compare_digest(tag, _tag(context, device, data)):
            info.initialDataSize = len(data)
        else:
            info.pInitialData = None
            info.initialDataSize = 0
            if context.first_of("foreign pipeline cache"):
                log.info(
                    "pipeline cache begins empty",
                    context=context.name,
                    reason=f"its {size} bytes were not handed out by this driver through Hesper",
                )
    call.run()


@handles("vkGetPipelineCacheData")
def get_pipeline_cache_data(context: Context, call: Call) -> None:
    """Hand out a cache's data with a tag behind it; how many they are says the kernel."""
    device = context.device(call.id("device"))
    size = call.args.pDataSize
    address = call.args.pointer_("pData")
    room = size[0]
    if room <= CACHE_TAG:
        size[0] = 0
        call.result = VK_INCOMPLETE
        return
    size[0] = room - CACHE_TAG
    if call.invoke() not in {VK_SUCCESS, VK_INCOMPLETE}:
        return
    written = size[0]
    if not 0 < written <= room - CACHE_TAG:
        size[0] = 0
        return
    tag = _tag(context, device, ctypes.string_at(address, written))
    ctypes.memmove(address + written, tag, CACHE_TAG)
    size[0] = written + CACHE_TAG


def _tag(context: Context, device: Device, data: bytes) -> bytes:
    """What shows that `data` come from this driver and this host user."""
    digest = hashlib.blake2b(key=context.cache_key, digest_size=CACHE_TAG, person=b"hesper cache")
    digest.update(device.physical.cache_identity)
    digest.update(data)
    return digest.digest()
