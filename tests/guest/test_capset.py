"""The capset: its layout is what every guest's driver reads first."""

from __future__ import annotations

import struct

import pytest

from hesper import protocol
from hesper.guest.capset import CAPSET_SIZE, capset, extension_mask


def test_fields_lie_where_guests_look_for_them() -> None:
    words = struct.unpack("<40I", capset())
    assert len(capset()) == CAPSET_SIZE
    wire_format, xml_version, serialization, venus = words[:4]
    assert wire_format == 1
    assert xml_version == 1 << 22 | 4 << 12 | protocol.load().header_version
    assert serialization == protocol.extensions()["VK_EXT_command_serialization"][1]
    assert venus == protocol.extensions()["VK_MESA_venus_protocol"][1]
    assert words[4] == 1  # supports_blob_id_0
    assert words[37:] == (1, 1, 0)  # allow_vk_wait_syncs, multiple timelines, use_guest_vram


def test_every_extension_with_a_wire_format_has_its_bit() -> None:
    mask = struct.unpack("<40I", capset())[5:37]
    expected = {number for number, _ in protocol.extensions().values()} | {0}
    assert {n for n in range(1024) if mask[n // 32] >> n % 32 & 1} == expected


@pytest.mark.parametrize("number", [-1, 0, 1024])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        extension_mask([number])
