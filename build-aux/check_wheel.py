"""Check what is compiled in a wheel for macOS, which no Mac is here to load.

    build-aux/check_wheel.py WHEEL...
    build-aux/check_wheel.py --objects OBJECT...

Run by the Python that the wheels are for.  Every compiled module is for the right processor and
the release of macOS that the wheel's name says, links to libSystem alone, wants only what
libSystem had then (`build-aux/macos-symbols.txt`) and what this Python exports, and has a
signature that fits where it needs one: Apple Silicon runs nothing else.  Of objects, which a
compiler has made for macOS and nobody has linked, what they want is looked at alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import struct
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import lief

SYSTEM = "/usr/lib/libSystem.B.dylib"
SYMBOLS = Path(__file__).with_name("macos-symbols.txt")
PROCESSORS = {"arm64": "ARM64", "x86_64": "X86_64"}
_SUPER_BLOB, _CODE_DIRECTORY, _SHA256 = 0xFADE0CC0, 0xFADE0C02, 2


def exported_by_python() -> set[str]:
    """What this Python exports to modules."""
    library = sysconfig.get_config_var("INSTSONAME") or ""
    files = [Path(sys.executable).resolve(), Path(sysconfig.get_config_var("LIBDIR")) / library]
    names: set[str] = set()
    for file in files:
        binary = lief.ELF.parse(str(file)) if file.is_file() else None
        if binary is not None:
            names.update(str(symbol.name) for symbol in binary.exported_symbols)
    return names


def allowed() -> set[str]:
    """The symbols of `macos-symbols.txt`, as they are written in Mach-O."""
    lines = SYMBOLS.read_text().splitlines()
    return {word for line in lines for word in line.partition("#")[0].split()}


def signature_problem(content: bytes, signature: bytes) -> str:
    """What is wrong with the ad-hoc signature of a Mach-O file; empty when nothing is."""
    magic, _, count = struct.unpack_from(">III", signature)
    if magic != _SUPER_BLOB:
        return "its signature is none"
    for index in range(count):
        _, at = struct.unpack_from(">II", signature, 12 + 8 * index)
        if struct.unpack_from(">I", signature, at)[0] != _CODE_DIRECTORY:
            continue
        hashes, _, _, slots, limit = struct.unpack_from(">5I", signature, at + 16)
        size, kind, _, shift = struct.unpack_from(">4B", signature, at + 36)
        if kind != _SHA256:
            return f"its signature is of kind {kind}"
        for slot in range(slots):
            page = content[slot << shift : min((slot + 1) << shift, limit)]
            start = at + hashes + slot * size
            if hashlib.sha256(page).digest() != signature[start : start + size]:
                return f"page {slot} is not what was signed"
        return ""
    return "nothing is signed"


def problems(content: bytes, processor: str, minimum: list[int], known: set[str]) -> Iterator[str]:
    """What is wrong with one compiled module."""
    fat = lief.MachO.parse(io.BytesIO(content))
    if fat is None or fat.size != 1:
        yield "no Mach-O file of one processor"
        return
    binary = fat.at(0)
    if binary is None:
        yield "empty"
        return
    if binary.header.cpu_type.name != PROCESSORS[processor]:
        yield f"for {binary.header.cpu_type.name}"
    build = binary.build_version
    version = [] if build is None else list(build.minos)
    if version[:2] != minimum:
        yield f"for macOS {version}"
    own = binary.get(lief.MachO.LoadCommand.TYPE.ID_DYLIB)
    for library in binary.libraries:
        if library.name != SYSTEM and library.command_offset != (own and own.command_offset):
            yield f"links to {library.name}"
    wanted = (str(symbol.name) for symbol in binary.imported_symbols)
    yield from (f"wants {name}" for name in wanted if name not in known)
    yield from unsigned(binary, content, processor)


def unsigned(binary: lief.MachO.Binary, content: bytes, processor: str) -> Iterator[str]:
    """What is wrong with a module's signature."""
    signature = binary.code_signature if binary.has_code_signature else None
    if signature is not None:
        if problem := signature_problem(content, bytes(signature.content)):
            yield problem
    elif processor == "arm64":
        yield "not signed"


def wanted_by_objects(objects: Iterable[Path], known: set[str]) -> Iterator[str]:
    """What is wrong with objects, whose symbols may be each other's."""
    wanted: list[tuple[str, str]] = []
    defined: set[str] = set()
    for path in objects:
        fat = lief.MachO.parse(str(path))
        binary = None if fat is None else fat.at(0)
        if binary is None:
            yield f"{path}: no Mach-O file"
            continue
        for symbol in binary.symbols:
            if symbol.category == lief.MachO.Symbol.CATEGORY.UNDEFINED:
                wanted.append((path.name, str(symbol.name)))
            else:
                defined.add(str(symbol.name))
    yield from (
        f"{name}: wants {symbol}" for name, symbol in wanted if symbol not in known | defined
    )


def main() -> None:
    """Check them; ends with a list of what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheels", nargs="*", type=Path)
    parser.add_argument("--objects", nargs="+", default=[], type=Path)
    arguments = parser.parse_args()
    known = allowed() | {f"_{name}" for name in exported_by_python()}
    found = list(wanted_by_objects(arguments.objects, known))
    for wheel in arguments.wheels:
        platform = wheel.stem.split("-")[-1]
        _, major, minor, processor = platform.split("_", 3)
        modules = 0
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if not name.endswith((".so", ".dylib")):
                    continue
                modules += 1
                minimum = [int(major), int(minor)]
                wrong = problems(archive.read(name), processor, minimum, known)
                found += [f"{wheel.name}: {name}: {problem}" for problem in wrong]
        if not modules:
            found.append(f"{wheel.name}: nothing in it is compiled")
        print(f"{wheel.name}: {modules} compiled modules")
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
