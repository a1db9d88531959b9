"""Arrays of pointers to arrays: the outer one may be left out, an inner one may not be empty."""

from __future__ import annotations

import struct

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec, CodecError, Reader
from kernel.decoding import MODEL, Bench

CODEC = Codec(MODEL)
COMMAND = "vkGetAccelerationStructureBuildSizesKHR"
INSTANCES = 2  # VK_GEOMETRY_TYPE_INSTANCES_KHR
ADDRESS = 0
"""The member of a union that is an address of the device's."""


def build(bench: Bench, geometries: int) -> bytes:
    """Ask what a build needs, of so many geometries by pointers."""
    one = {
        "geometryType": INSTANCES,
        "geometry": (INSTANCES, {"arrayOfPointers": 0, "data": (ADDRESS, 0)}),
    }
    info = {
        "type": 0,
        "mode": 0,
        "geometryCount": geometries,
        "scratchData": (ADDRESS, 0),
        "ppGeometries": [[one] for _ in range(geometries)] or None,
    }
    return CODEC.encode(
        COMMAND,
        {
            "device": bench.ids["VkDevice"],
            "buildType": 0,
            "pBuildInfo": info,
            "pMaxPrimitiveCounts": [1] * geometries,
            "pSizeInfo": {},
        },
    )


def emptied(message: bytes, whole: int) -> bytes:
    """The same with the first inner array empty; whole: bytes of its one element."""
    kind = MODEL.structs["VkAccelerationStructureGeometryKHR"].stype
    at = message.index(struct.pack("<QI", 1, kind))
    return message[:at] + bytes(8) + message[at + 8 + whole :]


def test_an_inner_array_has_what_its_length_says() -> None:
    """A driver reads as much, pointers in it too, whatever lies there."""
    bench = Bench()
    message, longer = build(bench, 1), build(bench, 2)
    # A length and an element more, and a u32 for it.
    broken = emptied(message, len(longer) - len(message) - 12)
    with pytest.raises(CodecError, match=r"ppGeometries\[0\]: 0 elements, not 1"):
        CODEC.decode(Reader(memoryview(broken)))
    with pytest.raises(ProtocolError, match="ppGeometries"):
        bench.engine.submit(broken)
    assert bench.seen == []


@pytest.mark.parametrize("geometries", [0, 1, 2])
def test_those_that_have_are_taken(geometries: int) -> None:
    bench = Bench()
    message = build(bench, geometries)
    assert CODEC.decode(Reader(memoryview(message)))[0].name == COMMAND
    bench.engine.submit(message)
    assert [name for name, _ in bench.seen] == [COMMAND]
