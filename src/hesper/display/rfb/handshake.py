"""Agreeing on version and security: RFC 6143 sections 7.1 and 7.2, and VeNCrypt.

VeNCrypt is security type 19 of the community's `rfbproto.rst`.  Of its subtypes those are offered
that have a certificate: anonymous TLS protects from nobody who is in between.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import re
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hesper.display.access.attempts import Attempts
from hesper.display.access.tls import TLS_SECONDS, Pace
from hesper.display.rfb.des import encrypt
from hesper.display.rfb.tls_channel import TlsChannel
from hesper.display.rfb.wire import RfbError

if TYPE_CHECKING:
    import ssl

    from hesper.display.rfb.channel import Channel

VERSION = b"RFB 003.008\n"
SECURITY_INVALID = 0
SECURITY_NONE = 1
SECURITY_VNC = 2
SECURITY_VENCRYPT = 19
VENCRYPT_VERSION = b"\x00\x02"
X509_NONE, X509_VNC, X509_PLAIN = 260, 261, 262
PASSWORD_BYTES = 8
"""VNC authentication looks at no more of a password."""
MIN_PASSWORD_BYTES = 6
MAX_PLAIN = 256
"""Bytes of a user's name, and of a password, that are read."""
PENALTY_SECONDS = 1.0
"""How long a wrong password is kept waiting."""
SPEAK_SECONDS = 5.0
"""What a viewer does by itself, without asking anybody, it does within so long."""


@dataclass(frozen=True, slots=True)
class Access:
    """What viewers have to show, and what they are shown."""

    key: bytes | None = None
    """The password, as `check_password` returns it; None asks for none."""
    tls: ssl.SSLContext | None = None
    """With this, everything after the handshake's begin is encrypted."""
    attempts: Attempts = field(default_factory=Attempts)
    pace: Pace = field(default_factory=Pace)


OPEN = Access()
"""For whoever has shown elsewhere that he may."""


def check_password(password: str) -> bytes:
    """Return the key for `password`.  Raises `ValueError` when VNC cannot use it."""
    try:
        key = password.encode("latin-1")
    except UnicodeEncodeError:
        message = "VNC password: only characters of ISO 8859-1 can be used"
        raise ValueError(message) from None
    if not MIN_PASSWORD_BYTES <= len(key) <= PASSWORD_BYTES:
        message = (
            f"VNC password of {len(key)} characters: must have {MIN_PASSWORD_BYTES} to"
            f" {PASSWORD_BYTES}, of which VNC looks at no more"
        )
        raise ValueError(message)
    return key.ljust(PASSWORD_BYTES, b"\0")


def vnc_response(key: bytes, challenge: bytes) -> bytes:
    """Return what a viewer that knows the password answers to a challenge of 16 bytes."""
    # VNC feeds each byte of the key to DES with its bits reversed.
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)
    return encrypt(mirrored, challenge[:8]) + encrypt(mirrored, challenge[8:])


async def handshake(channel: Channel, access: Access, peer: str) -> Channel:
    """Do it, up to and with `ClientInit`; returns the channel to go on with.

    peer: the address whose tries at the password are counted.

    Raises `RfbError` when the viewer is no RFB viewer, says nothing, or has the wrong password,
    `TimeoutError` when TLS takes too long.
    """
    agreement = _Handshake(channel, access, peer)
    await agreement.run()
    return agreement.channel


class _Handshake:
    def __init__(self, channel: Channel, access: Access, peer: str) -> None:
        self.channel = channel
        self._access = access
        self._peer = peer
        self._version = (3, 8)

    async def run(self) -> None:
        await self._agree_on_version()
        if self._access.key is not None:
            wait = self._access.attempts.wait(self._peer)
            if wait > 0:
                await self._refuse(f"too many wrong passwords: try again in {math.ceil(wait)} s")
        if self._access.tls is None:
            await self._agree_on_plain()
        else:
            await self._agree_on_tls(self._access.tls)
        await self._read(1)  # ClientInit: viewers share the screen, whatever they say here

    async def _agree_on_version(self) -> None:
        await self.channel.write([VERSION])
        answer = await self._read(len(VERSION))
        match = re.fullmatch(rb"RFB (\d{3})\.(\d{3})\n", answer)
        if match is None:
            raise RfbError(f"not an RFB viewer: it says {answer!r}")
        self._version = version = int(match[1]), int(match[2])
        if version < (3, 3):
            raise RfbError(
                f"viewer speaks RFB {version[0]}.{version[1]}; 3.3 is the oldest there is"
            )

    async def _agree_on_plain(self) -> None:
        kind = SECURITY_NONE if self._access.key is None else SECURITY_VNC
        await self._offer(kind)
        if self._access.key is not None:
            await self._vnc_authentication(self._access.key)
        elif self._version >= (3, 8):
            await self._succeed()

    async def _offer(self, kind: int) -> None:
        """Offer one security type, and have it chosen."""
        if self._version < (3, 7):
            await self.channel.write([struct.pack(">I", kind)])
            return
        await self.channel.write([bytes([1, kind])])
        chosen = (await self._read(1))[0]
        if chosen != kind:
            raise RfbError(f"viewer chose security type {chosen}, offered was {kind}")

    async def _agree_on_tls(self, context: ssl.SSLContext) -> None:
        if self._version < (3, 7):
            await self._refuse("this server wants TLS, and so a viewer with VeNCrypt")
        await self._offer(SECURITY_VENCRYPT)
        await self.channel.write([VENCRYPT_VERSION])
        version = await self._read(2)
        if version != VENCRYPT_VERSION:
            await self.channel.write([b"\xff"])
            raise RfbError(f"viewer speaks VeNCrypt {version[0]}.{version[1]}, not 0.2")
        key = self._access.key
        # Viewers take the first that they know.  With the second they can ask for a user's name,
        # as people expect of some, which is not looked at.
        kinds = (X509_NONE,) if key is None else (X509_VNC, X509_PLAIN)
        await self.channel.write([struct.pack(f">BB{len(kinds)}I", 0, len(kinds), *kinds)])
        (chosen,) = struct.unpack(">I", await self._read(4))
        if chosen not in kinds:
            await self.channel.write([b"\x00"])
            raise RfbError(f"viewer chose VeNCrypt's {chosen}, offered were {kinds}")
        await self.channel.write([b"\x01"])
        await self._access.pace.wait()
        tls = TlsChannel(self.channel, context)
        self.channel = tls
        async with asyncio.timeout(TLS_SECONDS):
            await tls.handshake()
        if key is None:
            await self._succeed()
        elif chosen == X509_PLAIN:
            await self._plain_authentication(key)
        else:
            await self._vnc_authentication(key)

    async def _vnc_authentication(self, key: bytes) -> None:
        challenge = secrets.token_bytes(16)
        await self.channel.write([challenge])
        # Somebody may have to type it: the whole handshake's time is the limit.
        answer = await self.channel.read(16)
        await self._judge(answer, lambda: vnc_response(key, challenge))

    async def _plain_authentication(self, key: bytes) -> None:
        lengths = struct.unpack(">II", await self.channel.read(8))
        if max(lengths) > MAX_PLAIN:
            raise RfbError(f"name and password of {lengths} bytes; at most {MAX_PLAIN} are read")
        await self._read(lengths[0])
        answer = await self._read(lengths[1])
        await self._judge(answer, lambda: key.rstrip(b"\0"))

    async def _judge(self, answer: bytes, right: Callable[[], bytes]) -> None:
        # DES in Python takes a millisecond, which a stranger gets no more often than a try.
        may_try = self._access.attempts.begin(self._peer)
        if may_try and hmac.compare_digest(answer, right()):
            self._access.attempts.succeed(self._peer)
            await self._succeed()
            return
        await asyncio.sleep(PENALTY_SECONDS)
        await self._fail("wrong password" if may_try else "too many wrong passwords")

    async def _succeed(self) -> None:
        await self.channel.write([struct.pack(">I", 0)])

    async def _fail(self, reason: str) -> None:
        """End after a security type was chosen."""
        parts = [struct.pack(">I", 1)]
        if self._version >= (3, 8):
            parts.append(_text(reason))
        await self.channel.write(parts)
        raise RfbError(reason)

    async def _refuse(self, reason: str) -> None:
        """End before a security type is chosen."""
        size = ">B" if self._version >= (3, 7) else ">I"
        await self.channel.write([struct.pack(size, SECURITY_INVALID), _text(reason)])
        raise RfbError(reason)

    async def _read(self, count: int) -> bytes:
        try:
            async with asyncio.timeout(SPEAK_SECONDS):
                return await self.channel.read(count)
        except TimeoutError:
            raise RfbError(f"viewer says nothing for {SPEAK_SECONDS:g} s") from None


def _text(reason: str) -> bytes:
    data = reason.encode()
    return struct.pack(">I", len(data)) + data
