"""A viewer's side of VeNCrypt, and of VNC's authentication."""

from __future__ import annotations

import asyncio
import ssl
import struct

from vnc_client import Viewer

from hesper.display.rfb.handshake import check_password, vnc_response

X509_VNC, X509_PLAIN = 261, 262


def trust(certificate: str) -> ssl.SSLContext:
    """What a viewer takes that was told of the certificate in a PEM file."""
    return ssl.create_default_context(cafile=certificate)


async def offered(port: int) -> tuple[Viewer, bytes]:
    """Connect; returns the security types that are offered."""
    viewer = await Viewer.begin(port)
    return viewer, await viewer.read(await viewer.number(1))


async def answer_challenge(viewer: Viewer, password: str) -> int:
    """Do VNC's authentication; returns the security result."""
    viewer.send(vnc_response(check_password(password), await viewer.read(16)))
    return await viewer.number(4)


async def reason(viewer: Viewer) -> bytes:
    """Read why."""
    return await viewer.read(await viewer.number(4))


async def authenticate(port: int, password: str) -> tuple[Viewer, int]:
    """Connect with a password and without TLS."""
    viewer, types = await offered(port)
    assert types == b"\x02"
    viewer.send(b"\x02")
    return viewer, await answer_challenge(viewer, password)


async def begin_vencrypt(port: int, kind: int) -> Viewer:
    """Go as far as choosing VeNCrypt's subtype."""
    viewer, types = await offered(port)
    assert types == bytes([19])
    viewer.send(bytes([19]))
    assert await viewer.read(2) == b"\0\x02"
    viewer.send(b"\0\x02")
    assert await viewer.number(1) == 0
    count = await viewer.number(1)
    assert struct.unpack(f">{count}I", await viewer.read(4 * count)) == (X509_VNC, X509_PLAIN)
    viewer.send(struct.pack(">I", kind))
    return viewer


async def begin_tls(port: int, kind: int, context: ssl.SSLContext) -> Viewer:
    """Go as far as what comes inside TLS."""
    viewer = await begin_vencrypt(port, kind)
    assert await viewer.number(1) == 1
    await asyncio.wait_for(
        viewer.writer.start_tls(context, server_hostname="localhost"), timeout=30
    )
    return viewer
