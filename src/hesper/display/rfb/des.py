"""DES, as FIPS 46-3 has it, for VNC authentication and nothing else.

Sixteen bytes are encrypted a login.  Well-kept cryptography libraries have removed single DES or
moved it to a corner for the decrepit, and weigh several megabytes; nobody should be able to reach
for this one by accident either, so it does single blocks and is not fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# The tables are the standard's, bits numbered from 1 at the left.
_PC1 = (
    *(57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18),
    *(10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36),
    *(63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22),
    *(14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4),
)
_PC2 = (
    *(14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4),
    *(26, 8, 16, 7, 27, 20, 13, 2, 41, 52, 31, 37, 47, 55, 30, 40),
    *(51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32),
)
_SHIFTS = (1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1)
_INITIAL = tuple(row - 8 * i for row in (58, 60, 62, 64, 57, 59, 61, 63) for i in range(8))
_FINAL = tuple(column - i for i in range(8) for column in (40, 8, 48, 16, 56, 24, 64, 32))
_EXPANSION = tuple((4 * group + offset - 1) % 32 + 1 for group in range(8) for offset in range(6))
_PERMUTATION = (
    *(16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10),
    *(2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25),
)
# Each box: four rows of sixteen values, a hexadecimal digit each.
_BOXES = (
    "e4d12fb83a6c5907 0f74e2d1a6cb9538 41e8d62bfc973a50 fc8249175b3ea06d",
    "f18e6b34972dc05a 3d47f28ec01a69b5 0e7ba4d158c6932f d8a13f42b67c05e9",
    "a09e63f51dc7b428 d709346a285ecbf1 d6498f30b12c5ae7 1ad069874fe3b52c",
    "7de3069a1285bc4f d8b56f03472c1ae9 a690cb7df13e5284 3f06a1d8945bc72e",
    "2c417ab6853fd0e9 eb2c47d150fa3986 421bad78f9c5630e b8c71e2d6f09a453",
    "c1af92680d34e75b af427c9561de0b38 9ef528c3704a1db6 432c95fabe17608d",
    "4b2ef08d3c975a61 d0b7491ae35c2f86 14bdc37eaf680592 6bd814a7950fe23c",
    "d2846fb1a93e50c7 1fd8a374c56b0e92 7b419ce206adf358 21e74a8dfc90356b",
)
_SUBSTITUTE = tuple(
    tuple(tuple(int(digit, 16) for digit in row) for row in box.split()) for box in _BOXES
)


def encrypt(key: bytes, block: bytes) -> bytes:
    """Encrypt one block of 8 bytes with a key of 8 bytes; the key's parity bits are ignored."""
    bits = _permute(int.from_bytes(block), 64, _INITIAL)
    left, right = bits >> 32, bits & 0xFFFFFFFF
    for subkey in _subkeys(key):
        left, right = right, left ^ _feistel(right, subkey)
    return _permute(right << 32 | left, 64, _FINAL).to_bytes(8)


def _permute(value: int, width: int, table: Sequence[int]) -> int:
    result = 0
    for position in table:
        result = result << 1 | value >> (width - position) & 1
    return result


def _subkeys(key: bytes) -> list[int]:
    chosen = _permute(int.from_bytes(key), 64, _PC1)
    high, low = chosen >> 28, chosen & 0xFFFFFFF
    subkeys = []
    for shift in _SHIFTS:
        high = (high << shift | high >> (28 - shift)) & 0xFFFFFFF
        low = (low << shift | low >> (28 - shift)) & 0xFFFFFFF
        subkeys.append(_permute(high << 28 | low, 56, _PC2))
    return subkeys


def _feistel(half: int, subkey: int) -> int:
    mixed = _permute(half, 32, _EXPANSION) ^ subkey
    result = 0
    for index, box in enumerate(_SUBSTITUTE):
        six = mixed >> (42 - 6 * index) & 0x3F
        result = result << 4 | box[six >> 4 & 2 | six & 1][six >> 1 & 15]
    return _permute(result, 32, _PERMUTATION)
