"""Agreeing on version and security, RFC 6143 sections 7.1 and 7.2."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import struct
from typing import TYPE_CHECKING

from hesper.display.rfb.des import encrypt
from hesper.display.rfb.wire import RfbError

if TYPE_CHECKING:
    from hesper.display.rfb.channel import Channel

VERSION = b"RFB 003.008\n"
SECURITY_NONE = 1
SECURITY_VNC = 2
PASSWORD_BYTES = 8
"""VNC authentication looks at no more of a password."""
PENALTY_SECONDS = 1.0
"""How long a wrong password is kept waiting."""


def check_password(password: str) -> bytes:
    """Return the key for `password`.  Raises `ValueError` when VNC cannot use it."""
    try:
        key = password.encode("latin-1")
    except UnicodeEncodeError:
        message = "VNC password: only characters of ISO 8859-1 can be used"
        raise ValueError(message) from None
    if not 1 <= len(key) <= PASSWORD_BYTES:
        message = f"VNC password of {len(key)} characters: VNC uses 1 to {PASSWORD_BYTES}"
        raise ValueError(message)
    return key.ljust(PASSWORD_BYTES, b"\0")


def vnc_response(key: bytes, challenge: bytes) -> bytes:
    """Return what a viewer that knows the password answers to a challenge of 16 bytes."""
    # VNC feeds each byte of the key to DES with its bits reversed.
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)
    return encrypt(mirrored, challenge[:8]) + encrypt(mirrored, challenge[8:])


async def handshake(channel: Channel, key: bytes | None) -> None:
    """Do it, up to and with `ClientInit`.

    `key` comes from `check_password`; None asks for no password.

    Raises `RfbError` when the viewer is no RFB viewer, or has the wrong password.
    """
    await channel.write([VERSION])
    answer = await channel.read(len(VERSION))
    match = re.fullmatch(rb"RFB (\d{3})\.(\d{3})\n", answer)
    if match is None:
        raise RfbError(f"not an RFB viewer: it says {answer!r}")
    version = int(match[1]), int(match[2])
    if version < (3, 3):
        raise RfbError(f"viewer speaks RFB {version[0]}.{version[1]}; 3.3 is the oldest there is")
    kind = SECURITY_NONE if key is None else SECURITY_VNC
    if version < (3, 7):
        await channel.write([struct.pack(">I", kind)])
    else:
        await channel.write([bytes([1, kind])])
        chosen = (await channel.read(1))[0]
        if chosen != kind:
            raise RfbError(f"viewer chose security type {chosen}, offered was {kind}")
    if key is not None:
        await _authenticate(channel, key, version)
    elif version >= (3, 8):
        await channel.write([struct.pack(">I", 0)])
    await channel.read(1)  # ClientInit: viewers share the screen, whatever they say here


async def _authenticate(channel: Channel, key: bytes, version: tuple[int, int]) -> None:
    challenge = secrets.token_bytes(16)
    await channel.write([challenge])
    answer = await channel.read(16)
    if hmac.compare_digest(answer, vnc_response(key, challenge)):
        await channel.write([struct.pack(">I", 0)])
        return
    await asyncio.sleep(PENALTY_SECONDS)
    reason = b"wrong password"
    parts = [struct.pack(">I", 1)]
    if version >= (3, 8):
        parts.append(struct.pack(">I", len(reason)) + reason)
    await channel.write(parts)
    raise RfbError("wrong password")
