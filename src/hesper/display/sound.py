"""What the guest plays, for whoever listens: interleaved samples, as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

RATE = 48_000
CHANNELS = 2
FRAME = 2 * CHANNELS
"""Bytes: signed 16-bit samples, little endian."""

SoundSource: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens the sound for one listener: whole frames, and nothing while the guest is quiet.

Raises `OSError` where there is none to be had; the iterator ends when the guest has.
"""
