"""Buffers and images that do not lie well, here, where the guest has put them."""

from __future__ import annotations

from typing import Any

import pytest
from recordings import command, file_of, read

from hesper.protocol.codec import Codec
from hesper.protocol.codec import Reader as WireReader
from hesper.trace.decoded import Decoded, decode
from hesper.trace.places import FIRST_OWN, Places
from hesper.trace.plan import Allocation, Bound
from hesper.trace.translate import Translation
from hesper.vk.enumerants import (
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
)
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT as LOCAL,
)
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT as COHERENT,
)
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT as VISIBLE,
)

CODEC = Codec()
DEVICE, MEMORY, IMAGE, BUFFER = 3, 9, 20, 30
DISCRETE = [LOCAL, VISIBLE | COHERENT]
TILED = {"memoryTypeBits": 0b01, "alignment": 1024, "size": 8192}
PLAIN = {"memoryTypeBits": 0b11, "alignment": 64, "size": 256}


class Here:
    """A driver that says what everything needs, and notes what it was told."""

    def __init__(self, needs: dict[int, dict[str, int]]) -> None:
        self.needs = needs
        self.told: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "Requirements" not in name:
            self.told.append((name, asked))
            return 0, {}
        (of,) = asked["pInfo"].values()
        return 0, {"pMemoryRequirements": {"memoryRequirements": self.needs[of]}}


def decoded(name: str, **parameters: Any) -> Decoded:
    """A command of a recording."""
    _, records = read(file_of(command(CODEC.encode(name, parameters))))
    return decode(0, records[0])


class NoShadows:
    """Notes which parts of the guest's memory lie elsewhere."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int, int, int]] = []
        self.left: list[int] = []

    def shadow(self, memory: int, at: int, size: int, own: int) -> None:
        self.shown.append((memory, at, size, own))

    def unshadow(self, own: int) -> None:
        self.left.append(own)


def places(
    here: Here,
    *,
    is_mapped: bool,
    size: int = 1 << 16,
    local: bool = True,
    shadows: NoShadows | None = None,
    buffers: dict[int, int] | None = None,
    starts: set[int] | None = None,
) -> Places:
    """With one allocation of what was the only type there was."""
    translation = Translation()
    translation.types_then, translation.types_now = [LOCAL | VISIBLE | COHERENT], DISCRETE
    translation.is_other = True
    translation.sizes |= buffers or {}
    found = Places(translation, here, shadows or NoShadows())
    info = {"allocationSize": size, "memoryTypeIndex": 0 if local and not is_mapped else 1}
    then = decoded("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=MEMORY)
    found.allocated(then, Allocation(is_mapped, [], starts or set()))
    return found


def bound(found: Places, name: str, of: int, offset: int) -> tuple[int, int]:
    """Where one is bound, here."""
    kind = "image" if "Image" in name else "buffer"
    info = {kind: of, "memory": MEMORY, "memoryOffset": offset}
    if name.endswith("2"):
        then = decoded(name, device=DEVICE, bindInfoCount=1, pBindInfos=[info])
    else:
        then = decoded(name, device=DEVICE, **info)
    data, lost = found.bind(then, {IMAGE})
    assert data is not None
    assert not lost
    parameters = CODEC.decode(WireReader(data))[2]
    here = (parameters.get("pBindInfos") or [parameters])[0]
    return here["memory"], here["memoryOffset"]


@pytest.mark.parametrize("name", ["vkBindImageMemory", "vkBindImageMemory2"])
def test_an_image_that_does_not_fit_has_memory_of_its_own(name: str) -> None:
    here = Here({IMAGE: TILED})
    found = places(here, is_mapped=False)
    assert bound(found, name, IMAGE, 2048) == (MEMORY, 2048)
    assert bound(found, name, IMAGE, 64) == (FIRST_OWN, 0)
    assert bound(found, name, IMAGE, (1 << 16) - 4096) == (FIRST_OWN + 1, 0)
    for _, told in here.told:
        assert told["pAllocateInfo"]["pNext"] == [
            ("VkMemoryDedicatedAllocateInfo", {"image": IMAGE})
        ]
        assert told["pAllocateInfo"]["allocationSize"] == TILED["size"]
        assert told["pAllocateInfo"]["memoryTypeIndex"] == 0
    assert found.moved == 2
    found.freed(decoded("vkFreeMemory", device=DEVICE, memory=MEMORY))
    freed = [told["memory"] for name, told in here.told if name == "vkFreeMemory"]
    assert freed == [FIRST_OWN, FIRST_OWN + 1]


def test_what_the_guest_sees_is_shown_to_it_where_it_was() -> None:
    here = Here({IMAGE: TILED, BUFFER: PLAIN, 31: PLAIN | {"alignment": 256}})
    shadows = NoShadows()
    found = places(here, is_mapped=True, shadows=shadows, buffers={31: 100})
    assert bound(found, "vkBindBufferMemory", BUFFER, 1024) == (MEMORY, 1024)
    assert bound(found, "vkBindBufferMemory", 31, 64) == (FIRST_OWN, 0)
    (_, told), *_ = here.told
    assert told["pAllocateInfo"]["memoryTypeIndex"] == 1, "it can be mapped"
    assert shadows.shown == [(MEMORY, 64, 100, FIRST_OWN)]
    assert bound(found, "vkBindImageMemory", IMAGE, 4096) == (FIRST_OWN + 1, 0)
    assert found.left(MEMORY, 1 << 16) == [(4096, 1 << 16)]
    bound(found, "vkBindBufferMemory", BUFFER, 1 << 15)
    assert found.left(MEMORY, 1 << 16) == [(4096, 1 << 15)]
    assert shadows.left == []
    found.freed(decoded("vkDestroyBuffer", device=DEVICE, buffer=31))
    assert shadows.left == [FIRST_OWN]
    assert here.told[-1] == ("vkFreeMemory", {"device": DEVICE, "memory": FIRST_OWN})


def test_a_driver_of_the_same_memory_may_want_other_places() -> None:
    translation = Translation()
    translation.types_then = translation.types_now = DISCRETE
    shadows = NoShadows()
    found = Places(translation, Here({BUFFER: PLAIN}), shadows)
    info = {"allocationSize": 1 << 16, "memoryTypeIndex": 1}
    then = decoded("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=MEMORY)
    found.allocated(then, Allocation(True))
    assert bound(found, "vkBindBufferMemory", BUFFER, 64) == (MEMORY, 64)
    assert bound(found, "vkBindBufferMemory", BUFFER, 16) == (FIRST_OWN, 0)
    assert shadows.shown == [(MEMORY, 16, PLAIN["size"], FIRST_OWN)]


def test_memory_of_a_type_that_there_never_was() -> None:
    translation = Translation()
    translation.types_then = translation.types_now = DISCRETE
    found = Places(translation, Here({BUFFER: PLAIN}), NoShadows())
    info = {"allocationSize": 1 << 16, "memoryTypeIndex": 1 << 31}
    then = decoded("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=MEMORY)
    found.allocated(then, Allocation(True))
    assert bound(found, "vkBindBufferMemory", BUFFER, 16) == (FIRST_OWN, 0)


def test_the_same_driver_moves_nothing() -> None:
    translation = Translation()
    translation.types_then = translation.types_now = DISCRETE
    found = Places(translation, Here({}), NoShadows())
    assert not found.is_needed
    assert found.wants(Allocation(True)) is None


def test_mapped_memory_stays_visible_whatever_an_image_wants() -> None:
    found = places(Here({IMAGE: TILED, BUFFER: PLAIN}), is_mapped=True)
    image = Bound(IMAGE, 4096, True, DEVICE, True)
    buffer = Bound(BUFFER, 0, False, DEVICE)
    wants = found.wants(Allocation(True, [image, buffer]))
    assert wants is not None
    assert (wants.types, wants.is_dedicated) == (0b11, False)
    wants = found.wants(Allocation(False, [image, buffer]))
    assert wants is not None
    assert (wants.types, wants.size, wants.is_dedicated) == (0b01, 12288, True)


@pytest.mark.parametrize("name", ["vkBindImageMemory", "vkBindImageMemory2"])
def test_an_image_that_fits_nowhere_is_not_bound(name: str) -> None:
    """One that lies row by row in what the guest has mapped can be nowhere else."""
    rows = 21
    here = Here({rows: PLAIN | {"alignment": 256}, IMAGE: TILED})
    found = places(here, is_mapped=True)
    one = {"image": rows, "memory": MEMORY, "memoryOffset": 64}
    if not name.endswith("2"):
        assert found.bind(decoded(name, device=DEVICE, **one), {IMAGE}) == (None, {rows})
        return
    infos = [one, {"image": IMAGE, "memory": MEMORY, "memoryOffset": 1024}]
    then = decoded(name, device=DEVICE, bindInfoCount=2, pBindInfos=infos)
    data, lost = found.bind(then, {IMAGE})
    assert data is not None
    assert lost == {rows}
    (kept,) = CODEC.decode(WireReader(data))[2]["pBindInfos"]
    assert (kept["image"], kept["memory"]) == (IMAGE, FIRST_OWN)


def test_what_has_no_memory_here_is_not_bound() -> None:
    class Full(Here):
        def __call__(self, name: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            if name == "vkAllocateMemory":
                return VK_ERROR_OUT_OF_DEVICE_MEMORY, {}
            return super().__call__(name, asked)

    found = places(Full({IMAGE: TILED}), is_mapped=False)
    info = {"image": IMAGE, "memory": MEMORY, "memoryOffset": 64}
    then = decoded("vkBindImageMemory", device=DEVICE, **info)
    assert found.bind(then, {IMAGE}) == (None, {IMAGE})


def test_what_is_too_large_is_moved_where_memory_has_the_same_types() -> None:
    translation = Translation()
    translation.types_then = translation.types_now = [LOCAL | VISIBLE | COHERENT]
    found = Places(translation, Here({IMAGE: TILED}), NoShadows())
    info = {"allocationSize": 4096, "memoryTypeIndex": 0}
    then = decoded("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=MEMORY)
    found.allocated(then, Allocation(False))
    assert bound(found, "vkBindImageMemory", IMAGE, 0) == (FIRST_OWN, 0)


@pytest.mark.parametrize(("next_", "is_moved"), [(8192, False), (4096, True)])
def test_an_image_that_is_larger_here_does_not_lie_over_what_comes_next(
    next_: int, *, is_moved: bool
) -> None:
    here = Here({IMAGE: TILED, BUFFER: PLAIN})
    found = places(here, is_mapped=False, starts={0, next_})
    assert (bound(found, "vkBindImageMemory", IMAGE, 0) == (FIRST_OWN, 0)) == is_moved
    assert bound(found, "vkBindBufferMemory", BUFFER, next_) == (MEMORY, next_)
    # The last one has all that is left.
    assert bound(found, "vkBindImageMemory", IMAGE, 16384) == (MEMORY, 16384)


def test_on_its_own_driver_things_may_share_bytes() -> None:
    translation = Translation()
    translation.types_then = translation.types_now = [LOCAL | VISIBLE | COHERENT]
    found = Places(translation, Here({IMAGE: TILED}), NoShadows())
    info = {"allocationSize": 1 << 16, "memoryTypeIndex": 0}
    then = decoded("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=MEMORY)
    found.allocated(then, Allocation(False, [], {0, 4096}))
    assert bound(found, "vkBindImageMemory", IMAGE, 0) == (MEMORY, 0)
