"""TLS for whatever others can reach: the certificate, and how fast handshakes are done."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

TLS_SECONDS = 10.0
"""A handshake may take so long."""
TLS_INTERVAL = 0.01
"""Between two handshakes: a signature is the costliest thing that a stranger can ask for."""
CERTIFICATE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Certificate:
    """What this server shows of itself."""

    context: ssl.SSLContext
    fingerprint: str
    """SHA-256 of the certificate, as browsers show it."""
    pin: str
    """SHA-256 of its public key, as TigerVNC's viewer shows it."""
    path: Path


def load_certificate(path: Path, key: Path | None = None) -> Certificate:
    """Take a certificate (and what it was signed with) from a PEM file.

    key: the file with its private key; None when that is in `path`, too.
    Raises `ValueError` when they cannot be used, `OSError` when they cannot be read.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    with path.open("rb") as file:
        text = file.read(CERTIFICATE_BYTES)
    if key is not None:
        key.open("rb").close()  # OpenSSL does not say which of the two it could not read
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(path, key, password=str)
        shown = x509.load_pem_x509_certificate(text)
        public = shown.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ssl.SSLError, ValueError) as error:
        where = path if key is None else f"{path} with {key}"
        reason = getattr(error, "reason", None) or "no certificate"
        message = (
            f"{where} cannot be used for TLS ({reason}): it must hold a certificate and its"
            " private key without a password, as PEM"
        )
        raise ValueError(message) from error
    fingerprint = shown.fingerprint(hashes.SHA256()).hex(":").upper()
    pin = base64.b64encode(hashlib.sha256(public).digest()).decode()
    return Certificate(context, fingerprint, pin, path)


def state_folder() -> Path:
    """Where what outlives a run is kept, by the XDG base directory specification."""
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = named if named.is_absolute() else Path.home() / ".local" / "state"
    return base / "hesper"


class Pace:
    """Lets handshakes begin one after the other, in the order in which they are asked for."""

    def __init__(self, interval: float = TLS_INTERVAL) -> None:
        """The first may begin at once."""
        self._interval = interval
        self._next = 0.0
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Wait for one's turn; who gives up in between costs the others nothing."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(self._next - loop.time())
            self._next = loop.time() + self._interval
