"""A shader's words are a SPIR-V module, as far as every parser goes along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec
from kernel.conftest import LAYOUT, Host

CODEC = Codec()
MAGIC = 0x07230203
CAPABILITY = [2 << 16 | 17, 1]
MODULE = [MAGIC, 0x10000, 0, 8, 0, *CAPABILITY]


def message(words: list[int]) -> bytes:
    info = {"codeSize": 4 * len(words), "pCode": words}
    parameters = {"device": 3, "pCreateInfo": info, "pShaderModule": 100}
    return CODEC.encode("vkCreateShaderModule", parameters)


def create(host: Host, words: list[int]) -> None:
    host.engine.submit(message(words))


def in_a_pipeline(host: Host, words: list[int]) -> None:
    chain = [("VkShaderModuleCreateInfo", {"codeSize": 4 * len(words), "pCode": words})]
    stage = {"flags": 0, "stage": 0x20, "module": 0, "pName": b"main", "pNext": chain}
    info: dict[str, Any] = {"flags": 0, "stage": stage, "layout": LAYOUT, "basePipelineIndex": -1}
    parameters = {"device": 3, "createInfoCount": 1, "pCreateInfos": [info], "pPipelines": [101]}
    host.engine.submit(CODEC.encode("vkCreateComputePipelines", parameters))


@pytest.mark.parametrize("command", [create, in_a_pipeline])
@pytest.mark.parametrize(
    "words",
    [
        MODULE,
        MODULE[:5],
        [MAGIC, 0x10600, 0xFFFFFFFF, 4194303, 0, *CAPABILITY, 1 << 16 | 1, 3 << 16 | 3, 4, 4],
    ],
    ids=["small", "header", "newest"],
)
def test_modules(host: Host, command: Callable[..., None], words: list[int]) -> None:
    command(host, words)
    assert host.fatal == []


def with_(place: int, value: int) -> list[int]:
    return [value if i == place else word for i, word in enumerate(MODULE)]


@pytest.mark.parametrize("command", [create, in_a_pipeline])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (MODULE[:4], "16 bytes, where the header of a SPIR-V module has 20"),
        (with_(0, 0x03022307), "it is no SPIR-V: it begins with 0x03022307, not with 0x07230203"),
        (with_(1, 0x20000), "its SPIR-V version, 0x00020000, is none of 1"),
        (with_(1, 0x1010001), "its SPIR-V version"),
        (with_(1, 0x10001), "its SPIR-V version"),
        (with_(3, 0), "its ids are said to lie below 0"),
        (with_(3, 4194304), "a module has one and 4194303 at most"),
        (with_(3, 0xFFFFFFFF), "its ids are said to lie below 4294967295"),
        (with_(4, 1), "the last word of its header is 1, not 0"),
        (with_(5, 17), "the instruction at word 5 is said to have 0 words; 2 are left"),
        (with_(5, 3 << 16), "the instruction at word 5 is said to have 3 words; 2 are left"),
        (with_(5, 1 << 16), "the instruction at word 6 is said to have 0 words; 1 are left"),
        ([*MODULE, 0xFFFF << 16], "the instruction at word 7 is said to have 65535 words"),
    ],
    ids=str,
)
def test_what_is_no_module(
    host: Host, command: Callable[..., None], words: list[int], sentence: str
) -> None:
    with pytest.raises(ProtocolError, match=f"VkShaderModuleCreateInfo.pCode: .*{sentence}"):
        command(host, words)


def test_half_a_word(host: Host) -> None:
    with pytest.raises(ProtocolError, match="array length 7 contradicts its count"):
        host.engine.submit(message(MODULE).replace(b"\x1c" + bytes(7), b"\x1d" + bytes(7)))
