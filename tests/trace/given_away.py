"""A guest that makes an image for others, draws to it and gives it away."""

from __future__ import annotations

from typing import Any

from every_driver import (
    COLOUR,
    DMA_BUF,
    FOREIGN,
    GENERAL,
    HEIGHT,
    MODIFIER,
    SAMPLED,
    TRANSFER_DST,
    TRANSFERS,
    WIDTH,
    Commands,
)
from guest_client import DEVICE, PHYSICAL_DEVICE, Guest

PITCH = 448
"""lavapipe's, of `WIDTH` texels; no fake driver that cannot draw to linear images chooses it."""
PAGES = -(-PITCH * HEIGHT // 4096)
LISTED = (
    "VkImageDrmFormatModifierListCreateInfoEXT",
    {"drmFormatModifierCount": 1, "pDrmFormatModifiers": [0]},
)
IMAGE: dict[str, Any] = {
    "pNext": [("VkExternalMemoryImageCreateInfo", {"handleTypes": DMA_BUF}), LISTED],
    "imageType": 1,
    "format": 37,
    "extent": {"width": WIDTH, "height": HEIGHT, "depth": 1},
    "mipLevels": 1,
    "arrayLayers": 1,
    "samples": 1,
    "tiling": MODIFIER,
    "usage": TRANSFERS | SAMPLED | COLOUR,
}


def give_away(guest: Guest, *, asks: bool) -> None:
    """Make an image to be shared, with a view to draw to it, fill it and give it away.

    asks: whether the guest wants to know if it was made.
    """
    guest.ask(
        "vkGetPhysicalDeviceMemoryProperties",
        physicalDevice=PHYSICAL_DEVICE,
        pMemoryProperties={},
    )
    image = guest.new_id()
    (guest.ask if asks else guest.send)(
        "vkCreateImage", device=DEVICE, pCreateInfo=IMAGE, pImage=image
    )
    needs = guest.ask(
        "vkGetImageMemoryRequirements", device=DEVICE, image=image, pMemoryRequirements={}
    )["pMemoryRequirements"]
    result, memory = guest.allocate(needs["size"])
    assert result == 0
    guest.ask("vkBindImageMemory", device=DEVICE, image=image, memory=memory, memoryOffset=0)
    layout = guest.ask(
        "vkGetImageSubresourceLayout",
        device=DEVICE,
        image=image,
        pSubresource={"aspectMask": 0x80},
        pLayout={},
    )["pLayout"]
    assert layout["rowPitch"] == PITCH
    whole = {"aspectMask": 1, "levelCount": 1, "layerCount": 1}
    info = {"image": image, "viewType": 1, "format": 37, "subresourceRange": whole}
    guest.create("ImageView", info)
    resource, _ = guest.blob(memory, needs["size"])
    commands = Commands(guest)
    commands.barrier(image, wide=False, newLayout=TRANSFER_DST, dstAccessMask=0x1000)
    guest.send(
        "vkCmdClearColorImage",
        commandBuffer=commands.id,
        image=image,
        imageLayout=TRANSFER_DST,
        pColor=(0, [1.0, 0.0, 0.0, 1.0]),
        rangeCount=1,
        pRanges=[whole],
    )
    families = {"srcQueueFamilyIndex": 0, "dstQueueFamilyIndex": FOREIGN}
    layouts = {"oldLayout": TRANSFER_DST, "newLayout": GENERAL}
    commands.barrier(image, wide=False, srcAccessMask=0x1000, **layouts, **families)
    commands.run()
    guest.context.destroy_resource(resource)
