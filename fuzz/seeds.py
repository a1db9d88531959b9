"""Write the corpus that fuzzers begin with: `python -m fuzz.seeds`; it is the same every time.

Most targets take any bytes for choices, so that bytes of a generator are good seeds; formats that
must be met are written out.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

from fuzz.targets.recording import input_of_records
from hesper.protocol.codec import Codec
from hesper.trace.records import BLOB_BODY, COMMAND_BODY, MEMORY_BODY, Kind, put

CORPUS = Path(__file__).with_name("corpus")
SETTINGS = (
    b'name = "x"\nhidden_extensions = ["VK_KHR_*"]\n',
    b'[features_off]\nVkPhysicalDeviceFeatures = ["sparseBinding"]\n',
)
MANIFEST = (
    b'{"file_format_version": "1.0.0", "ICD": {"library_path": "x.so", "api_version": "1.3.0"}}'
)


def any_bytes(seed: str, first: bytes, count: int) -> list[bytes]:
    """Inputs that begin with each of `first`, as long as some hundred choices."""
    rng = random.Random(seed)
    return [bytes([byte]) + rng.randbytes(rng.choice((60, 200, 500))) for byte in first * count]


def vnc() -> list[bytes]:
    """A viewer that asks for pictures in each encoding and format, and does all else."""
    request = struct.pack(">BBHHHH", 3, 0, 0, 0, 64, 64)
    layout = struct.pack(">BBBBHHHBBB3x", 16, 16, 0, 1, 31, 63, 31, 11, 5, 0)
    messages = [
        struct.pack(">Bxxx", 0) + layout,
        *(struct.pack(">BxHii", 2, 2, code, -239) for code in (0, 7, 16)),
        struct.pack(">BxH6i", 2, 6, 7, -26, -250, -308, -312, -313),
        struct.pack(">BBHHHH", 150, 1, 0, 0, 64, 64),
        struct.pack(">BxxxIB", 248, 0x80000001, 4) + b"abcd",
        struct.pack(">BBxxI", 4, 1, 0x61),
        struct.pack(">BBHH", 5, 1, 3, 4),
        struct.pack(">BBHII", 255, 0, 1, 0x61, 30),
        struct.pack(">BxHHBxIHHHHI", 251, 80, 60, 1, 0, 0, 0, 80, 60, 0),
    ]
    head = bytes([0, 60, 40])
    return [head + each + request for each in messages] + [head + b"".join(messages) + request * 3]


def recordings() -> list[bytes]:
    """Records of a program that makes a few objects, asked each of the questions."""
    codec = Codec()
    shader = [0x07230203, 0x10000, 0, 9, 0, 2 << 16 | 17, 1, 3 << 16 | 5, 1, 0x6161]
    commands = [
        codec.encode("vkCreateInstance", {"pCreateInfo": {}, "pInstance": 1}),
        codec.encode("vkCreateBuffer", {"device": 3, "pCreateInfo": {"size": 9}, "pBuffer": 17}),
        codec.encode(
            "vkCreateShaderModule",
            {"device": 3, "pCreateInfo": {"codeSize": 40, "pCode": shader}, "pShaderModule": 18},
        ),
        codec.encode("vkCmdDraw", {"commandBuffer": 9, "vertexCount": 3}),
    ]
    records = b"".join(
        put(Kind.COMMAND, COMMAND_BODY.pack(1000, 0, 0) + each, stream=5) for each in commands
    )
    records += put(Kind.MEMORY, MEMORY_BODY.pack(2, 0, 4096) + b"abcd")
    records += put(Kind.BLOB, BLOB_BODY.pack(2, 1, 17, 8192)) + put(Kind.END, b"it is over")
    return [input_of_records(what, records) for what in range(6)]


def main() -> None:
    """Write all."""
    inputs = {
        "context": any_bytes("context", bytes([0x0F, 0x4F, 0x1F, 0x8F, 0x03, 0x01]), 6),
        "gpu": any_bytes("gpu", bytes(range(0, 21, 2)), 3),
        "vtest": any_bytes("vtest", bytes([0, 1, 2, 4]), 6),
        "vnc": vnc(),
        "web": any_bytes("web", bytes(range(6)), 4),
        "door": any_bytes("door", bytes(range(8, 24, 2)), 3),
        "settings": [
            *(bytes([1]) + each for each in SETTINGS),
            bytes([2]) + MANIFEST,
            bytes([3]) + b"8G",
            bytes([4]) + b'{"memory": 1}',
        ],
        "recording": recordings(),
    }
    for target, seeds in inputs.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds):
            (CORPUS / target / f"seed-{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()
