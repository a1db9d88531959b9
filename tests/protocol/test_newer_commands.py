"""Commands that Mesa has sent since its protocol had number 345, byte for byte.

Source: venus-protocol's VK_EXT_command_serialization.xml and what Mesa's vn_protocol_driver.h
encodes.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from hesper.protocol.codec import Codec, Reader
from hesper.protocol.model import load

CODEC = Codec(load())
COMMANDS = 7
"""Guest id of a command buffer."""
RENDERING_END_INFO = 1000619003


@pytest.mark.parametrize(
    ("name", "parameters", "sent"),
    [
        (
            "vkCmdEndRendering2KHR",
            {"pRenderingEndInfo": {"pNext": []}},
            struct.pack("<IIQQIQ", 346, 0, COMMANDS, 1, RENDERING_END_INFO, 0),
        ),
        (
            "vkCmdEndRendering2KHR",
            {"pRenderingEndInfo": None},
            struct.pack("<IIQQ", 346, 0, COMMANDS, 0),
        ),
        (
            "vkCmdSetPrimitiveRestartIndexEXT",
            {"primitiveRestartIndex": 0xFFFE},
            struct.pack("<IIQI", 347, 0, COMMANDS, 0xFFFE),
        ),
    ],
)
def test_it_lies_on_the_wire_as_clients_send_it(
    name: str, parameters: dict[str, Any], sent: bytes
) -> None:
    parameters = {"commandBuffer": COMMANDS, **parameters}
    assert CODEC.encode(name, parameters) == sent
    command, _, decoded = CODEC.decode(Reader(sent))
    assert (command.name, decoded) == (name, parameters)


def test_a_command_has_a_number_of_its_own() -> None:
    numbers = [c.number for c in CODEC.model.commands.values() if c.number >= 0]
    assert len(numbers) == len(set(numbers))
