"""A certificate of one's own, made when one is first needed and kept."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hesper.display.access.tls import Certificate, load_certificate, state_folder
from hesper.log import get_logger
from hesper.portable import name_beside

log = get_logger(__name__)

FILE = "screens.pem"
DAYS = 825
"""Apple's systems take none that is valid for longer."""
RENEW_DAYS = 7
MAX_NAME = 64
"""Characters of a common name, by RFC 5280."""


def own_certificate(folder: Path | None = None) -> Certificate:
    """Return the certificate of this user on this machine; make it if there is none that lasts.

    folder: where it is kept; None: `state_folder()`.
    Raises `OSError` when it cannot be kept, `ValueError` when what is kept cannot be used or
    others can read it.
    """
    folder = state_folder() if folder is None else folder
    path = folder / FILE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _write(path, replace=False)
    _check(path)
    if _days_left(path) < RENEW_DAYS:
        _write(path, replace=True)
    return load_certificate(path)


def _check(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o77:
        message = f"{path} is not this user's alone: remove it, and another is made"
        raise ValueError(message)


def _days_left(path: Path) -> float:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        message = f"{path} is no certificate: remove it, and another is made"
        raise ValueError(message) from error
    now = datetime.datetime.now(datetime.UTC)
    return (found.not_valid_after_utc - now) / datetime.timedelta(days=1)


def _write(path: Path, *, replace: bool) -> None:
    """Write a new one, whole and with mode 0600 from the start.

    Without `replace`, another that has been written in the meantime stays.
    """
    part = name_beside(path)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(make())
        if replace:
            part.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(part)
    finally:
        part.unlink(missing_ok=True)
    log.info("a certificate was made", path=str(path), days=DAYS)


def make(days: int = DAYS) -> bytes:
    """Return a new private key and a certificate for this machine's name, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:MAX_NAME] or "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    if host and host.isascii():
        names.append(x509.DNSName(host))
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
