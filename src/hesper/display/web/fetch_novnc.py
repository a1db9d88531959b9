"""Fetch noVNC for the web page, when a wheel is built.

noVNC (MPL 2.0) is not part of this repository.  Its npm package is taken with the npm client, so
whatever registry, proxy or cache that client is set up for is used, and checked against the hash
below.  Run by the build as `fetch_novnc.py DIRECTORY`; by hand for a checkout, with the `novnc`
folder beside this file.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

PACKAGE = "@novnc/novnc@1.7.0"
SHA512 = "ucEJOx4T2avIRCleodk7YobZj5O2Ga2AeLfQ69A/yjG9HHba2+PDgwSkN3FttrmG+70ZGx21sElNFouK13RzyA=="
"""`dist.integrity` of the package."""

WANTED = ("core", "vendor", "docs", "AUTHORS")
"""What of the package is kept; licences are in docs."""

HINT = (
    "install Node.js with npm, set npm_config_registry if this machine uses a mirror, "
    "or build without the web page (-Dweb=disabled)"
)


class FetchError(Exception):
    """The package cannot be had."""


def pack(npm: str, folder: Path) -> bytes:
    """Have npm download the package; returns the archive."""
    command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(folder)]
    try:
        # In an empty folder, so that no package.json around here says anything about it.
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        raise FetchError(f"{npm} not found: {HINT}") from None
    except subprocess.CalledProcessError as error:
        raise FetchError(f"{' '.join(command)} failed ({error.returncode}): {HINT}") from None
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise FetchError(f"npm pack left {len(archives)} archives in {folder}, expected one")
    return archives[0].read_bytes()


def check(archive: bytes) -> None:
    """Compare the archive with the hash.  Raises `FetchError`."""
    found = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != SHA512:
        raise FetchError(f"{PACKAGE} has SHA-512 {found}, expected {SHA512}: not used")


def unpack(archive: bytes, target: Path) -> None:
    """Write the files that are wanted to `target`, replacing what is there."""
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            path = PurePosixPath(member.name)
            inside = path.parts[1:]
            if not member.isfile() or not inside or inside[0] not in WANTED or ".." in inside:
                continue
            source = tar.extractfile(member)
            if source is None:
                continue
            file = target.joinpath(*inside)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(source.read())


def main() -> int:
    """Fetch into the folder that is named, or `novnc` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", nargs="?", type=Path, help="where to put it")
    parser.add_argument("--npm", default="npm", help="the npm client")
    arguments = parser.parse_args()
    target = arguments.directory or Path(__file__).resolve().parent / "novnc"
    try:
        with tempfile.TemporaryDirectory() as folder:
            archive = pack(arguments.npm, Path(folder))
        check(archive)
    except FetchError as error:
        print(f"fetch_novnc: {error}", file=sys.stderr)
        return 1
    unpack(archive, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
