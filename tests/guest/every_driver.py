"""What holds of every driver: whatever a guest is offered works.

`python every_driver.py MANIFEST [HANDLES]` is a guest of the driver in that manifest, of whose
handle types of memory those named are left; it prints what it has tried and ends with 0.
A process of its own: fake drivers abort where a rule of theirs is broken.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from guest_client import DEVICE, PHYSICAL_DEVICE, QUEUE, Guest

from hesper.guest import InvalidParameterError
from hesper.host.drivers import choose_driver
from hesper.host.profile import ExternalHandles, Profile
from hesper.portable import SharedMemory

HOST_VISIBLE = 0x2
DMA_BUF = 0x200
OPTIMAL, LINEAR, MODIFIER = 0, 1, 1000158000
R8G8B8A8, D32 = 37, 126
TRANSFERS, SAMPLED, COLOUR, DEPTH = 0x3, 0x4, 0x10, 0x20
TRANSIENT = 0x40
FOREIGN = 0xFFFFFFFD
GENERAL, TRANSFER_DST, PREINITIALIZED, ZERO_INITIALIZED = 1, 7, 8, 1000620000
CLEARED = ("VkMemoryAllocateFlagsInfo", {"flags": 0x8})
"""Chained to an allocation that is to be zero."""
WIDTH, HEIGHT = 100, 40
RED = b"\xff\x00\x00\xff"


@dataclass(frozen=True)
class Needs:
    """VkMemoryRequirements."""

    size: int
    types: list[int]
    is_dedicated: bool
    """Whether it insists on memory of its own."""


class Checked:
    """A guest that asks for everything and takes what it is offered."""

    def __init__(self, manifest: str, handles: list[str]) -> None:
        kept = ExternalHandles(memory=handles or None)
        profile = Profile(name="test", external_handles=kept)
        self.guest = Guest(choose_driver(manifest), profile=profile).start()
        answer = self.guest.ask(
            "vkGetPhysicalDeviceMemoryProperties",
            physicalDevice=PHYSICAL_DEVICE,
            pMemoryProperties={},
        )["pMemoryProperties"]
        count = answer["memoryTypeCount"]
        self.flags = [each["propertyFlags"] for each in answer["memoryTypes"][:count]]
        self.tried = 0
        instance = self.guest.context.instance
        assert instance is not None
        physical = instance.physical_devices[PHYSICAL_DEVICE]
        self.strategy = type(physical.strategy).__name__
        self.native = physical.memory_types.native

    def is_visible(self, type_: int) -> bool:
        return bool(self.flags[type_] & HOST_VISIBLE)

    def memory(self, type_: int, size: int, chain: Any = None) -> int:
        """Device memory; what is visible must be there to be mapped, too."""
        result, memory = self.guest.allocate(size, type_=type_, chain=chain)
        assert result == 0, (type_, size, chain, result)
        self.tried += 1
        if self.is_visible(type_):
            resource, blob = self.guest.blob(memory, size)
            with SharedMemory.from_fd(blob.fd, size) as seen:
                seen.view[size - 1] = 1
            self.guest.context.destroy_resource(resource)
        else:
            try:
                self.guest.blob(memory, size)
            except InvalidParameterError:
                pass
            else:
                raise AssertionError(f"type {type_} is private and can be mapped")
        return memory

    def free(self, kind: str, made: int, *memory: int) -> None:
        name = kind[0].lower() + kind[1:]
        self.guest.send(f"vkDestroy{kind}", device=DEVICE, **{name: made})
        for each in memory:
            self.guest.send("vkFreeMemory", device=DEVICE, memory=each)

    def needs(self, kind: str, made: int, info: dict[str, Any]) -> Needs:
        """What all three questions about it say; they must agree."""
        name = kind.lower()
        plain = self.guest.ask(
            f"vkGet{kind}MemoryRequirements",
            device=DEVICE,
            **{name: made},
            pMemoryRequirements={},
        )["pMemoryRequirements"]
        more = self.guest.ask(
            f"vkGet{kind}MemoryRequirements2",
            device=DEVICE,
            pInfo={name: made},
            pMemoryRequirements={"pNext": [("VkMemoryDedicatedRequirements", {})]},
        )["pMemoryRequirements"]
        wide = more["memoryRequirements"]
        dedicated = dict(more["pNext"])["VkMemoryDedicatedRequirements"]
        ahead = self.guest.ask(
            f"vkGetDevice{kind}MemoryRequirements",
            device=DEVICE,
            pInfo={"pCreateInfo": info},
            pMemoryRequirements={},
        )["pMemoryRequirements"]["memoryRequirements"]
        assert plain == wide == ahead, (plain, wide, ahead)
        types = [i for i in range(32) if plain["memoryTypeBits"] >> i & 1]
        assert types, info
        assert types[-1] < len(self.flags), (types, info)
        return Needs(plain["size"], types, bool(dedicated["requiresDedicatedAllocation"]))

    def bind_everywhere(self, kind: str, info: dict[str, Any]) -> None:
        """Make it once for each type that it is said to fit, with and without dedication."""
        is_external = is_for_others(info)
        probe = self.guest.create(kind, info)
        needs = self.needs(kind, probe, info)
        self.free(kind, probe)
        if is_external:
            assert all(map(self.is_visible, needs.types)), (needs, info)
        ways = (True,) if needs.is_dedicated else (False, True)
        for type_, is_dedicated in itertools.product(needs.types, ways):
            made = self.guest.create(kind, info)
            name = kind.lower()
            chain: list[Any] = []
            if is_dedicated:
                chain.append(("VkMemoryDedicatedAllocateInfo", {name: made}))
            if is_external:
                chain.append(("VkExportMemoryAllocateInfo", {"handleTypes": DMA_BUF}))
            memory = self.memory(type_, needs.size, chain)
            bind = {"device": DEVICE, name: made, "memory": memory, "memoryOffset": 0}
            self.guest.ask(f"vkBind{kind}Memory", **bind)
            if kind == "Image" and info["usage"] & (COLOUR | DEPTH):
                self.view(made, info)
            self.free(kind, made, memory)

    def view(self, image: int, info: dict[str, Any]) -> None:
        """Make a view of an image as an attachment; what is offered must be able to be one."""
        whole = {"aspectMask": 2 if info["usage"] == DEPTH else 1, "levelCount": 1, "layerCount": 1}
        view = self.guest.create(
            "ImageView",
            {
                "image": image,
                "viewType": info["imageType"],
                "format": info["format"],
                "subresourceRange": whole,
            },
        )
        self.free("ImageView", view)


def external(kind: str) -> list[Any]:
    return [(f"VkExternalMemory{kind}CreateInfo", {"handleTypes": DMA_BUF})]


def chains(kind: str) -> list[list[Any]]:
    """For nobody else, for nobody else as some programs say it, and for others."""
    nobody = [(f"VkExternalMemory{kind}CreateInfo", {"handleTypes": 0})]
    return [[], nobody, external(kind)]


def is_for_others(info: dict[str, Any]) -> bool:
    """Whether a buffer or image is to be shared."""
    return any(struct.get("handleTypes") for _, struct in info["pNext"])


def check_memory(checked: Checked) -> None:
    """Types that are shown as host-visible can be mapped; there is one at least."""
    assert any(map(checked.is_visible, range(len(checked.flags))))
    for type_, flags in enumerate(checked.flags):
        if flags & 0x10:
            continue  # lazily allocated: for attachments only
        memory = checked.memory(type_, 100_000)
        checked.guest.send("vkFreeMemory", device=DEVICE, memory=memory)


def check_buffers(checked: Checked) -> None:
    """Buffers fit where they are said to."""
    for usage, chain in itertools.product((TRANSFERS, 0x1F3), chains("Buffer")):
        checked.bind_everywhere("Buffer", {"size": 70_000, "usage": usage, "pNext": chain})


def image_infos() -> Iterator[dict[str, Any]]:
    """Images that a driver may have or not."""
    usages = (TRANSFERS | SAMPLED, TRANSFERS | SAMPLED | COLOUR, COLOUR | TRANSIENT, DEPTH)
    for tiling, usage in itertools.product((OPTIMAL, LINEAR, MODIFIER), usages):
        for samples, levels, type_ in ((1, 1, 1), (4, 1, 1), (1, 3, 1), (1, 1, 2)):
            for chain in chains("Image"):
                if tiling == MODIFIER:
                    modifiers = {"drmFormatModifierCount": 1, "pDrmFormatModifiers": [0]}
                    chain.append(("VkImageDrmFormatModifierListCreateInfoEXT", modifiers))
                yield {
                    "pNext": chain,
                    "imageType": type_,
                    "format": D32 if usage == DEPTH else R8G8B8A8,
                    "extent": {"width": 64, "height": 64, "depth": 4 if type_ == 2 else 1},
                    "mipLevels": levels,
                    "arrayLayers": 1,
                    "samples": samples,
                    "tiling": tiling,
                    "usage": usage,
                }


def is_offered(checked: Checked, info: dict[str, Any]) -> bool:
    """Whether an image like that is said to be possible."""
    chain: list[Any] = []
    answer: list[Any] = []
    if is_for_others(info):
        chain.append(("VkPhysicalDeviceExternalImageFormatInfo", {"handleType": DMA_BUF}))
        answer.append(("VkExternalImageFormatProperties", {}))
    if info["tiling"] == MODIFIER:
        modifier = {"drmFormatModifier": 0, "sharingMode": 0}
        chain.append(("VkPhysicalDeviceImageDrmFormatModifierInfoEXT", modifier))
    question = {
        "pNext": chain,
        "format": info["format"],
        "type": info["imageType"],
        "tiling": info["tiling"],
        "usage": info["usage"],
    }
    result, outputs = checked.guest.call(
        "vkGetPhysicalDeviceImageFormatProperties2",
        physicalDevice=PHYSICAL_DEVICE,
        pImageFormatInfo=question,
        pImageFormatProperties={"pNext": answer},
    )
    if result != 0:
        return False
    found = outputs["pImageFormatProperties"]
    limits = found["imageFormatProperties"]
    if answer:
        memory = dict(found["pNext"])["VkExternalImageFormatProperties"]
        if memory["externalMemoryProperties"]["externalMemoryFeatures"] & 0x6 != 0x6:
            return False
    return bool(limits["sampleCounts"] & info["samples"]) and (
        limits["maxMipLevels"] >= info["mipLevels"]
    )


def check_images(checked: Checked) -> int:
    """Images that are offered can be made, and fit where they are said to."""
    offered = 0
    for info in image_infos():
        if is_offered(checked, info):
            offered += 1
            try:
                checked.bind_everywhere("Image", info)
            except AssertionError as error:
                raise AssertionError(f"{error} for {info}") from error
    return offered


class Commands:
    """A command buffer of the guest's."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        pool = guest.create("CommandPool", {})
        self.id = guest.new_id()
        info = {"commandPool": pool, "commandBufferCount": 1}
        guest.ask(
            "vkAllocateCommandBuffers",
            device=DEVICE,
            pAllocateInfo=info,
            pCommandBuffers=[self.id],
        )
        guest.ask("vkBeginCommandBuffer", commandBuffer=self.id, pBeginInfo={})

    def barrier(self, image: int, *, wide: bool, **fields: int) -> None:
        """A barrier about an image, by the first or the second command for it."""
        whole = {"aspectMask": 1, "levelCount": 1, "layerCount": 1}
        barrier = {"image": image, "subresourceRange": whole, **fields}
        if wide:
            barrier |= {"srcStageMask": 0x10000, "dstStageMask": 0x10000}
            info = {"imageMemoryBarrierCount": 1, "pImageMemoryBarriers": [barrier]}
            self.guest.send("vkCmdPipelineBarrier2", commandBuffer=self.id, pDependencyInfo=info)
            return
        self.guest.send(
            "vkCmdPipelineBarrier",
            commandBuffer=self.id,
            srcStageMask=0x10000,
            dstStageMask=0x10000,
            imageMemoryBarrierCount=1,
            pImageMemoryBarriers=[barrier],
        )

    def run(self) -> None:
        self.guest.ask("vkEndCommandBuffer", commandBuffer=self.id)
        batch = {"commandBufferCount": 1, "pCommandBuffers": [self.id]}
        self.guest.ask("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[batch], fence=0)
        self.guest.wait_for_queue()


def shared_image(checked: Checked, pitch: int) -> tuple[int, SharedMemory, int, int]:
    """An image for others, its memory mapped, and the row pitch; and where the rows begin."""
    layout = {"offset": 0, "rowPitch": pitch}
    explicit = {"drmFormatModifier": 0, "drmFormatModifierPlaneCount": 1, "pPlaneLayouts": [layout]}
    any_layout = {"drmFormatModifierCount": 1, "pDrmFormatModifiers": [0]}
    info = {
        "pNext": [
            *external("Image"),
            ("VkImageDrmFormatModifierExplicitCreateInfoEXT", explicit)
            if pitch
            else ("VkImageDrmFormatModifierListCreateInfoEXT", any_layout),
        ],
        "imageType": 1,
        "format": R8G8B8A8,
        "extent": {"width": WIDTH, "height": HEIGHT, "depth": 1},
        "mipLevels": 1,
        "arrayLayers": 1,
        "samples": 1,
        "tiling": MODIFIER,
        "usage": TRANSFERS | SAMPLED | COLOUR,
    }
    guest = checked.guest
    image = guest.create("Image", info)
    needs = checked.needs("Image", image, info)
    chain = [("VkMemoryDedicatedAllocateInfo", {"image": image})]
    memory = checked.memory(needs.types[0], needs.size, chain if needs.is_dedicated else [])
    bind = {"image": image, "memory": memory, "memoryOffset": 0}
    guest.ask("vkBindImageMemory2", device=DEVICE, bindInfoCount=1, pBindInfos=[bind])
    found = guest.ask(
        "vkGetImageSubresourceLayout",
        device=DEVICE,
        image=image,
        pSubresource={"aspectMask": 0x80},
        pLayout={},
    )["pLayout"]
    assert pitch in {0, found["rowPitch"]}
    _, blob = guest.blob(memory, needs.size)
    return image, SharedMemory.from_fd(blob.fd, needs.size), found["rowPitch"], found["offset"]


def rows(seen: SharedMemory, pitch: int, offset: int) -> list[bytes]:
    starts = range(offset, offset + pitch * HEIGHT, pitch)
    return [bytes(seen.view[start : start + 4 * WIDTH]) for start in starts]


def check_contents(checked: Checked) -> None:
    """What a program has put into a linear image before its first use is there."""
    guest = checked.guest
    info = {
        "imageType": 1,
        "format": R8G8B8A8,
        "extent": {"width": WIDTH, "height": HEIGHT, "depth": 1},
        "mipLevels": 1,
        "arrayLayers": 1,
        "samples": 1,
        "tiling": LINEAR,
        "usage": TRANSFERS | SAMPLED,
        "initialLayout": PREINITIALIZED,
    }
    image = guest.create("Image", info)
    needs = checked.needs("Image", image, info)
    visible = next(filter(checked.is_visible, needs.types))
    chain = [("VkMemoryDedicatedAllocateInfo", {"image": image})]
    memory = checked.memory(visible, needs.size, chain if needs.is_dedicated else [])
    guest.ask("vkBindImageMemory", device=DEVICE, image=image, memory=memory, memoryOffset=0)
    layout = guest.ask(
        "vkGetImageSubresourceLayout",
        device=DEVICE,
        image=image,
        pSubresource={"aspectMask": 1},
        pLayout={},
    )["pLayout"]
    pitch, offset = layout["rowPitch"], layout["offset"]
    drawn = [bytes((x * 7 + y) % 251 for x in range(4 * WIDTH)) for y in range(HEIGHT)]
    _, blob = guest.blob(memory, needs.size)
    with SharedMemory.from_fd(blob.fd, needs.size) as seen:
        for y, row in enumerate(drawn):
            seen.view[offset + y * pitch : offset + y * pitch + len(row)] = row
    for wide in (False, True):
        old = GENERAL if wide else PREINITIALIZED
        assert read_image(checked, image, wide=wide, oldLayout=old) == b"".join(drawn)


def check_zeros(checked: Checked) -> None:
    """Memory and images that are to be zero are, and no driver is asked for what it may not do."""
    for type_ in filter(checked.is_visible, range(len(checked.flags))):
        for _ in range(2):  # the second one gets what the first has given back
            memory = checked.memory(type_, 100_000, [CLEARED])
            resource, blob = checked.guest.blob(memory, 100_000)
            with SharedMemory.from_fd(blob.fd, 100_000) as seen:
                assert not any(seen.view[:99_999])  # `memory` has written the last
                seen.view[:100_000] = b"\1" * 100_000
            checked.guest.context.destroy_resource(resource)
            checked.guest.send("vkFreeMemory", device=DEVICE, memory=memory)
    for tiling in (OPTIMAL, LINEAR):
        info = {
            "imageType": 1,
            "format": R8G8B8A8,
            "extent": {"width": WIDTH, "height": HEIGHT, "depth": 1},
            "mipLevels": 1,
            "arrayLayers": 1,
            "samples": 1,
            "tiling": tiling,
            "usage": TRANSFERS | SAMPLED,
            "initialLayout": ZERO_INITIALIZED,
        }
        if tiling == OPTIMAL and not checked.native:
            continue  # not offered there
        image = checked.guest.create("Image", info)
        types = checked.needs("Image", image, info).types
        if tiling == OPTIMAL:
            assert not any(map(checked.is_visible, types))
        else:
            assert any(map(checked.is_visible, types))
        checked.free("Image", image)


def read_image(checked: Checked, image: int, *, wide: bool, **barrier: int) -> bytes:
    """The pixels of an image that is in its general layout after a barrier."""
    guest = checked.guest
    size = 4 * WIDTH * HEIGHT
    buffer = guest.create("Buffer", {"size": size, "usage": TRANSFERS})
    memory = checked.memory(next(filter(checked.is_visible, range(len(checked.flags)))), size)
    guest.ask("vkBindBufferMemory", device=DEVICE, buffer=buffer, memory=memory, memoryOffset=0)
    commands = Commands(guest)
    commands.barrier(image, wide=wide, newLayout=GENERAL, dstAccessMask=0x800, **barrier)
    guest.send(
        "vkCmdCopyImageToBuffer",
        commandBuffer=commands.id,
        srcImage=image,
        srcImageLayout=GENERAL,
        dstBuffer=buffer,
        regionCount=1,
        pRegions=[
            {
                "imageSubresource": {"aspectMask": 1, "layerCount": 1},
                "imageExtent": {"width": WIDTH, "height": HEIGHT, "depth": 1},
            }
        ],
    )
    commands.run()
    _, blob = guest.blob(memory, size)
    with SharedMemory.from_fd(blob.fd, size) as copy:
        return bytes(copy.view[:size])


def check_what_is_drawn_is_seen(checked: Checked, pitch: int, *, wide: bool) -> None:
    """A picture that is given away lies in shared memory, every pixel of it."""
    image, seen, pitch, offset = shared_image(checked, pitch)
    commands = Commands(checked.guest)
    commands.barrier(image, wide=wide, newLayout=TRANSFER_DST, dstAccessMask=0x1000)
    whole = {"aspectMask": 1, "levelCount": 1, "layerCount": 1}
    checked.guest.send(
        "vkCmdClearColorImage",
        commandBuffer=commands.id,
        image=image,
        imageLayout=TRANSFER_DST,
        pColor=(0, [1.0, 0.0, 0.0, 1.0]),
        rangeCount=1,
        pRanges=[whole],
    )
    commands.barrier(
        image,
        wide=wide,
        oldLayout=TRANSFER_DST,
        newLayout=GENERAL,
        srcAccessMask=0x1000,
        srcQueueFamilyIndex=0,
        dstQueueFamilyIndex=FOREIGN,
    )
    commands.run()
    assert rows(seen, pitch, offset) == [RED * WIDTH] * HEIGHT
    seen.close()


def check_what_others_draw_is_read(checked: Checked, pitch: int, *, wide: bool) -> None:
    """A picture that is taken back is what others have put into shared memory."""
    image, seen, pitch, offset = shared_image(checked, pitch)
    drawn = [bytes((x + y) % 251 for x in range(4 * WIDTH)) for y in range(HEIGHT)]
    for y, row in enumerate(drawn):
        seen.view[offset + y * pitch : offset + y * pitch + len(row)] = row
    families = {"srcQueueFamilyIndex": FOREIGN, "dstQueueFamilyIndex": 0}
    read = read_image(checked, image, wide=wide, oldLayout=GENERAL, **families)
    assert read == b"".join(drawn)
    seen.close()


def main(manifest: str, *handles: str) -> None:
    """Check everything."""
    checked = Checked(manifest, list(handles))
    check_memory(checked)
    check_buffers(checked)
    offered = check_images(checked)
    check_contents(checked)
    check_zeros(checked)
    # The driver's own row pitch, one that no driver would choose, and a display's.
    for pitch, wide in itertools.product((0, 4 * 103, 512), (False, True)):
        check_what_is_drawn_is_seen(checked, pitch, wide=wide)
        check_what_others_draw_is_read(checked, pitch, wide=wide)
    assert not checked.guest.fatal
    checked.guest.close()
    assert checked.guest.context.pool.used == 0
    strategy = checked.strategy
    print(f"{strategy}: {offered} kinds of image, {checked.tried} allocations")


if __name__ == "__main__":
    main(*sys.argv[1:])
