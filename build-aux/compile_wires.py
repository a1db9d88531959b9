#!/usr/bin/env python3
"""Give compiled code the numbers and structs of messages: `compile_wires.py FOLDER`.

Writes a `.pxd` for each module below, from the Python that says what the messages are.
"""

import re
import sys
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from hesper import portable
from hesper.gpu import context_wire
from hesper.gpu.wire import Response
from hesper.protocol import virtgpu
from hesper.vtest import wire as vtest_wire

TYPES = {"I": "uint32_t", "Q": "uint64_t"}


def constants(values: dict[str, int]) -> list[str]:
    """Declare numbers."""
    return ["cdef enum:", *(f"    {name} = {int(value)}" for name, value in values.items())]


def members(prefix: str, numbers: type[IntEnum]) -> dict[str, int]:
    """Name the members of an enumeration."""
    return {f"{prefix}_{member.name}": int(member) for member in numbers}


def packed(fields: Any, layout: Struct) -> list[str]:
    """Declare a struct with the fields of a NamedTuple, as `layout` packs them."""
    format_ = layout.format
    assert format_[0] in "<=", f"{format_}: only host and little-endian byte order without gaps"
    codes = "".join(code * int(count or 1) for count, code in re.findall(r"(\d*)(\w)", format_[1:]))
    names = fields._fields
    assert len(codes) == len(names), f"{fields.__name__}: {len(names)} fields for {format_}"
    lines = [f"cdef packed struct {fields.__name__}:"]
    return lines + [f"    {TYPES[code]} {name}" for code, name in zip(codes, names, strict=True)]


def write(path: Path, module: str, *parts: list[str]) -> None:
    """Write one file."""
    head = [f'"""Made from `{module}` by `build-aux/compile_wires.py`."""']
    imports = ["from libc.stdint cimport uint32_t, uint64_t"]
    blocks = [head, imports, *parts]
    path.write_text("\n\n\n".join("\n".join(block) for block in blocks) + "\n")


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1])
    write(
        folder / "hesper_virtgpu.pxd",
        virtgpu.__name__,
        constants(
            {
                "MAX_TIMELINES": virtgpu.MAX_TIMELINES,
                "BLOB_USE_MAPPABLE": virtgpu.BlobFlag.USE_MAPPABLE,
                "BLOB_FLAGS": virtgpu.BLOB_FLAGS,
                "MAP_CACHE_CACHED": virtgpu.MAP_CACHE_CACHED,
            }
        ),
    )
    write(
        folder / "hesper_vtest_wire.pxd",
        vtest_wire.__name__,
        constants(
            {
                **members("COMMAND", vtest_wire.Command),
                **members("PHASE", vtest_wire.Phase),
                **members("BLOB", vtest_wire.BlobType),
                "WAIT_EITHER": vtest_wire.WAIT_EITHER,
                "BATCH_RING_IDX": vtest_wire.BATCH_RING_IDX,
                "LONG_BATCH": vtest_wire.LONG_BATCH,
            }
        ),
        *(packed(*both) for both in vtest_wire.LAYOUTS.items()),
    )
    write(
        folder / "hesper_context_wire.pxd",
        context_wire.__name__,
        constants(
            {
                **members("DOWN", context_wire.Down),
                **members("UP", context_wire.Up),
                "MAX_MESSAGE": portable.MAX_MESSAGE,
                "MAX_FDS": portable.MAX_FDS,
                "OK_NODATA": Response.OK_NODATA,
            }
        ),
        *(packed(*both) for both in context_wire.LAYOUTS.items()),
    )


if __name__ == "__main__":
    main()
