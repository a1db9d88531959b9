"""Write a llama model of random numbers: something for llama-bench to load, not to talk to.

    python -m hesper.bench.random_llama OUT.gguf [--layers 4] [--width 256] [--feed-forward 768]

The defaults make 7 MB; `--layers 16 --width 2048 --feed-forward 5632` makes 1.6 GB.
The format is GGUF version 3 (ggml's docs/gguf.md): little endian, tensors aligned to 32 bytes.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 32
CONTEXT = 2048
HEAD = 32
"""Width of an attention head."""

_U32, _I32, _F32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_GGML_F32, _GGML_F16 = 0, 1
_FILE_TYPE_F16 = 1
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

Value = int | float | str | list[str] | list[float] | list[int]


@dataclass(frozen=True)
class Shape:
    """How large a model is."""

    layers: int = 4
    width: int = 256
    """Numbers in an embedding; heads must divide half of it."""
    forward: int = 768
    """Numbers in the feed-forward part."""
    tokens: int = 512


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: rows of `width` numbers."""

    name: str
    rows: int
    width: int

    @property
    def is_norm(self) -> bool:
        """Whether it is a vector of ones (float32) and not a random matrix (float16)."""
        return self.rows == 0

    @property
    def size(self) -> int:
        """Bytes it takes, with padding."""
        size = 4 * self.width if self.is_norm else 2 * self.rows * self.width
        return -(-size // ALIGNMENT) * ALIGNMENT


def text(value: str) -> bytes:
    """A string: u64 length, bytes."""
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def entry(key: str, value: Value) -> bytes:
    """One key with its value."""
    return text(key) + struct.pack("<I", kind(value)) + encode(value)


def kind(value: Value) -> int:
    """GGUF's number for the type of a value."""
    if isinstance(value, list):
        return _ARRAY
    return {int: _U32, float: _F32, str: _STRING}[type(value)]


def encode(value: Value) -> bytes:
    """A value without its type."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return struct.pack("<f", value)
    if isinstance(value, int):
        return struct.pack("<I", value)
    inner = _I32 if isinstance(value[0], int) else kind(value[0])
    head = struct.pack("<IQ", inner, len(value))
    return head + b"".join(encode(element) for element in value)


def vocabulary(size: int) -> tuple[list[str], list[int]]:
    """Tokens and their types: three special ones, all bytes, then made-up words."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = size - len(tokens)
    types = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * words]
    return [*tokens, *(f"word{number}" for number in range(words))], types


def metadata(shape: Shape) -> dict[str, Value]:
    """What the file says of the model."""
    names, types = vocabulary(shape.tokens)
    heads = shape.width // HEAD
    return {
        "general.architecture": "llama",
        "general.name": "random",
        "general.alignment": ALIGNMENT,
        "general.file_type": _FILE_TYPE_F16,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": shape.width,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.forward,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": heads // 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD,
        "llama.vocab_size": shape.tokens,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.scores": [0.0] * shape.tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def tensors(shape: Shape) -> Iterator[Tensor]:
    """All tensors of the model, in file order."""
    width, forward = shape.width, shape.forward
    yield Tensor("token_embd.weight", shape.tokens, width)
    yield Tensor("output.weight", shape.tokens, width)
    yield Tensor("output_norm.weight", 0, width)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        yield Tensor(f"{block}.attn_norm.weight", 0, width)
        yield Tensor(f"{block}.ffn_norm.weight", 0, width)
        yield Tensor(f"{block}.attn_q.weight", width, width)
        yield Tensor(f"{block}.attn_k.weight", width // 2, width)
        yield Tensor(f"{block}.attn_v.weight", width // 2, width)
        yield Tensor(f"{block}.attn_output.weight", width, width)
        yield Tensor(f"{block}.ffn_gate.weight", forward, width)
        yield Tensor(f"{block}.ffn_up.weight", forward, width)
        yield Tensor(f"{block}.ffn_down.weight", width, forward)


def description(tensor: Tensor, offset: int) -> bytes:
    """What the file says of a tensor: name, dimensions (fastest first), type, offset."""
    shape = [tensor.width] if tensor.is_norm else [tensor.width, tensor.rows]
    number = _GGML_F32 if tensor.is_norm else _GGML_F16
    return (
        text(tensor.name)
        + struct.pack("<I", len(shape))
        + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", number, offset)
    )


def content(tensor: Tensor, random: np.random.Generator) -> bytes:
    """The numbers of a tensor, padded."""
    values: NDArray[np.floating]
    if tensor.is_norm:
        values = np.ones(tensor.width, np.float32)
    else:
        shape = (tensor.rows, tensor.width)
        values = (random.standard_normal(shape, np.float32) * 0.02).astype(np.float16)
    return values.tobytes().ljust(tensor.size, b"\0")


def write(out: Path, shape: Shape) -> None:
    """Write the model file.  Raises `ValueError` for a width that heads do not divide."""
    if shape.width % (2 * HEAD):
        raise ValueError(f"a width of {shape.width} is no multiple of {2 * HEAD}")
    entries = metadata(shape)
    listed: Sequence[Tensor] = list(tensors(shape))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(listed), len(entries))
    head += b"".join(entry(key, value) for key, value in entries.items())
    offset = 0
    for tensor in listed:
        head += description(tensor, offset)
        offset += tensor.size
    random = np.random.default_rng(1)
    with out.open("wb") as file:
        file.write(head.ljust(-(-len(head) // ALIGNMENT) * ALIGNMENT, b"\0"))
        for tensor in listed:
            file.write(content(tensor, random))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hesper.bench.random_llama")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--width", type=int, default=Shape.width)
    parser.add_argument("--feed-forward", type=int, default=Shape.forward)
    parser.add_argument("--tokens", type=int, default=Shape.tokens)
    options = parser.parse_args()
    write(options.out, Shape(options.layers, options.width, options.feed_forward, options.tokens))


if __name__ == "__main__":
    main()
