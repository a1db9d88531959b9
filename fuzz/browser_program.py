"""What a hostile browser sends to the web page's server, made of a fuzzer's choices."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator

from fuzz.source import Source

TOKEN = "the-token-of-the-page"
MAX_REQUESTS = 6
MAX_FRAMES = 24
PATHS = (
    "/", "/vnc/0", "/vnc/0", "/vnc/0", "/vnc/1", "/vnc/7", "/vnc/100", "/live", "/live", "/metrics",
    "/page/index.html", "/novnc/core/rfb.js", "/favicon.svg", "/page/../server.py", "/novnc/%2e%2e",
    "/page//", "/page/%00", "*", "//", "/?token=x#y",
)  # fmt: skip
METHODS = (*("GET",) * 12, "HEAD", "POST", "OPTIONS", "CONNECT", "PUT", "get", "GET\0")
ORIGINS = ("http://localhost", "http://elsewhere", "null", "http://[", "https://localhost", "\xff")
ENDS = ("\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r")
OTHERS = (
    "Content-Length: 4", "Content-Length: -1", "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked", "Expect: 100-continue", "Range: bytes=0-3", "Range: bytes=9-1",
    "Accept-Encoding: gzip, br", "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT",
    "If-None-Match: \"x\"", "Connection: close", "Connection: keep-alive", "Host: other",
    "Sec-WebSocket-Extensions: permessage-deflate", "Cookie: a=b; c", "X: " + "y" * 300, "Bad",
    " folded", ": empty", "Upgrade: h2c", "Content-Type: multipart/form-data; boundary=",
)  # fmt: skip
OPCODES = (2, 2, 2, 2, 2, 1, 0, 8, 9, 10, 3, 15)


def said(source: Source) -> Iterator[bytes]:
    """What one connection sends, a piece after another."""
    for _ in range(1 + source.number(1) % MAX_REQUESTS):
        kind = source.number(1) % 16
        if kind == 0:
            yield source.take(source.number(2) % 4096)
        elif kind < 9:
            yield _request(source, socket=True)
            for _ in range(source.number(1) % MAX_FRAMES):
                yield _frame(source)
        else:
            yield _request(source, socket=False)
            if source.number(1) % 4 == 3:
                yield source.take(source.number(1))
        if source.is_empty:
            return


def _request(source: Source, *, socket: bool) -> bytes:
    """A request, mostly one that a browser would send."""
    choice = source.number(1)
    path = source.choice(PATHS)
    if socket and choice < 200:
        path = ("/vnc/0", "/vnc/0", "/live")[choice % 3]
    lines = [f"{source.choice(METHODS) if choice % 4 == 3 else 'GET'} {path} HTTP/1.1"]
    odd = source.number(1)
    if odd != 1:
        lines.append("Host: localhost")
    token = TOKEN if odd < 208 else source.take(odd % 32).decode("latin-1")
    if socket:
        key = base64.b64encode(hashlib.sha256(bytes([odd])).digest()[: 16 if odd < 224 else 9])
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Key: {key.decode()}"]
        lines += [f"Sec-WebSocket-Protocol: hesper, hesper.{token}"]
        if odd % 4 == 2:
            lines.append(f"Origin: {source.choice(ORIGINS)}")
    elif odd % 2:
        lines.append(f"Authorization: {source.choice(('Bearer', 'bearer', 'Basic'))} {token}")
    for _ in range(max(0, source.number(1) % 8 - 4)):
        lines.insert(1 + source.below(len(lines)), source.choice(OTHERS))
    end = source.choice(ENDS)
    data = bytearray((end.join(lines) + 2 * end).encode("latin-1"))
    for _ in range(max(0, source.number(1) % 8 - 5)):
        data[source.below(len(data))] = source.number(1)
    return bytes(data)


def _frame(source: Source) -> bytes:
    """A frame of a WebSocket, as large as it says or not."""
    choice = source.number(1)
    payload = source.take(source.number(2) % 2048 if choice >= 192 else source.number(1) % 64)
    opcode = source.choice(OPCODES) if choice % 2 else 2
    bits = 0x80 | opcode if choice % 16 < 14 else source.number(1)
    size = len(payload) if choice % 32 < 30 else source.number(8)
    # What a browser must do: the mask is 0, so that what is sent is what is read.
    masked = 0x80 if choice % 64 < 62 else 0
    if size < 126:
        head = bytes([bits, masked | size])
    elif size < 1 << 16:
        head = struct.pack(">BBH", bits, masked | 126, size)
    else:
        head = struct.pack(">BBQ", bits, masked | 127, size)
    return head + (bytes(4) if masked else b"") + payload
