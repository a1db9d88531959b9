"""Debian's installer: its kernel and its initial RAM file system, fetched and checked.

What is fetched is checked as far as this machine can: Debian's signature, where gpgv and Debian's
keys are, else the server's certificate; and checksums from there down.  The installer itself has
Debian's keys, and installs nothing else.  Sources: Debian wiki, "RepositoryFormat"; Linux,
`Documentation/driver-api/early-userspace/buffer-format.rst`.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import lzma
import re
import shutil
import stat
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from hesper.vm.guest_image import ImageError, Step

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
FILES = ("linux", "initrd.gz")
FETCH_SECONDS = 60.0
"""That a server may be silent for."""
_LARGEST = 512 << 20
"""Bytes; no file of the installer comes near."""


def fetch(
    mirror: str, suite: str, architecture: str, folder: Path, step: Step
) -> tuple[Path, Path]:
    """Put kernel and initial RAM file system of the suite's installer into `folder`.

    mirror: the archive's address.  architecture: Debian's name.
    Raises `ImageError` for what cannot be fetched, or is not what Debian has signed.
    """
    mirror = mirror.rstrip("/")
    dists = f"{mirror}/dists/{suite}"
    release, how = _release(mirror, _get(f"{dists}/InRelease"), folder)
    step(f"fetching Debian's installer ({how})")
    try:
        found = _images(dists, release, architecture)
    except ImageError as error:
        # Not every mirror has them, and some bring them up to date after the lists of packages.
        step(f"fetching it as a package, since {error}")
        found = _packaged(mirror, suite, architecture, release)
    for name, content in found.items():
        (folder / name).write_bytes(content)
    return folder / FILES[0], folder / FILES[1]


def _images(dists: str, release: str, architecture: str) -> dict[str, bytes]:
    """What the archive has of the installer beside its packages."""
    images = f"main/installer-{architecture}/current/images"
    sums = _get(f"{dists}/{images}/SHA256SUMS")
    _check(sums, _listed(release, f"{images}/SHA256SUMS"), "SHA256SUMS")
    found = {}
    for name in FILES:
        path = f"netboot/debian-installer/{architecture}/{name}"
        found[name] = _get(f"{dists}/{images}/{path}")
        _check(found[name], _listed(sums.decode(errors="replace"), f"./{path}"), name)
    return found


def _packaged(mirror: str, suite: str, architecture: str, release: str) -> dict[str, bytes]:
    """The same out of the package debian-installer-RELEASE-netboot-ARCHITECTURE."""
    index = f"main/binary-{architecture}/Packages.xz"
    packages = _get(f"{mirror}/dists/{suite}/{index}")
    _check(packages, _listed(release, index), index)
    name = re.compile(rf"Package: debian-installer-\w+-netboot-{architecture}\n")
    for text in lzma.decompress(packages).decode(errors="replace").split("\n\n"):
        if name.match(text):
            about = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
            package = _get(f"{mirror}/{about['Filename']}")
            _check(package, about["SHA256"], about["Package"])
            return _unpacked(package, f"text/debian-installer/{architecture}/")
    raise ImageError(f"{suite} has no package of Debian's installer for {architecture}")


def _unpacked(package: bytes, folder: str) -> dict[str, bytes]:
    """The installer's files out of a package, which is an archive of ar's (`deb(5)`)."""
    at = len(b"!<arch>\n")
    while not package.startswith(b"data.tar", at):
        size = int(package[at + 48 : at + 58])
        at += 60 + size + size % 2
    with tarfile.open(fileobj=io.BytesIO(package[at + 60 :]), mode="r:*") as archive:
        return {
            name: file.read()
            for entry in archive
            for name in FILES
            if entry.name.endswith(folder + name) and (file := archive.extractfile(entry))
        }


def _release(mirror: str, signed: bytes, folder: Path) -> tuple[str, str]:
    """Return what a release file says, and by what it was checked."""
    keys = next((path for path in KEYRINGS if path.is_file()), None)
    if keys is None or shutil.which("gpgv") is None:
        if not mirror.startswith("https:"):
            raise ImageError(
                f"{mirror} cannot be checked: there is no gpgv with Debian's keys here; take a"
                " mirror by https"
            )
        return signed.decode(errors="replace"), "checked by the server's certificate"
    file, plain = folder / "InRelease", folder / "Release"
    file.write_bytes(signed)
    done = subprocess.run(
        ["gpgv", "--keyring", keys, "--output", plain, file],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise ImageError(f"{mirror}: what it has is not signed by Debian:\n{done.stderr.strip()}")
    return plain.read_text(encoding="utf-8", errors="replace"), "checked by Debian's signature"


def _get(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=FETCH_SECONDS) as answer:
            content: bytes = answer.read(_LARGEST + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ImageError(f"cannot fetch {address}: {reason}") from None
    if len(content) > _LARGEST:
        raise ImageError(f"cannot fetch {address}: it is larger than {_LARGEST >> 20} MiB")
    return content


def _listed(text: str, name: str) -> str:
    """Return the SHA-256 that a list has for a file."""
    for line in text.splitlines():
        words = line.split()
        if words and words[-1] == name and len(words[0]) == hashlib.sha256().digest_size * 2:
            return words[0]
    raise ImageError(f"Debian's list has no {name}: is there an installer of this release?")


def _check(content: bytes, wanted: str, name: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise ImageError(
            f"{name} is not what Debian has signed, as on a mirror that is being brought up to"
            f" date: {found} instead of {wanted}; try later, or another --mirror"
        )


def add_files(initrd: Path, files: Mapping[str, bytes]) -> None:
    """Append files, by their paths from the root, to an initial RAM file system."""
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in sorted(folders)]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    entries.append(("TRAILER!!!", 0, b""))
    archive = bytearray()
    for inode, (path, mode, content) in enumerate(entries, 1):
        name = path.encode() + b"\0"
        numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % number for number in numbers) + name
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    size = initrd.stat().st_size
    with initrd.open("ab") as file:
        # Archives begin at multiples of four.
        file.write(bytes(-size % 4) + gzip.compress(bytes(archive)))
