"""What a shared library says of itself: its machine, what it needs, what it defines.

Source: System V ABI, chapters 4 and 5, and "Symbol Versioning" of the Linux Standard Base.  Read
are 64-bit little-endian files with section headers, which is what Mesa's Venus is built for.  A
library may lie in an image that nobody vouches for: every offset is checked, and what does not fit
is an `ElfError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hesper.errors import HesperError

MACHINES = {62: "x86_64", 183: "aarch64", 3: "i386", 40: "arm", 243: "riscv64", 21: "ppc64"}
"""Names of `e_machine`'s values, of those one may meet."""

_SECTION_DYNAMIC, _SECTION_SYMBOLS = 6, 11
_SECTION_DEFINED, _SECTION_NEEDED, _SECTION_VERSIONS = 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF

_TAG_NEEDED, _TAG_SONAME, _TAG_RPATH, _TAG_RUNPATH = 1, 14, 15, 29

_WEAK = 2
_HIDDEN_VERSION = 0x8000
_LOCAL, _GLOBAL = 0, 1
_MOST_STEPS = 1 << 20
"""Entries of a list that are followed; a hostile one may have no end."""

Symbol = tuple[str, str]
"""Name and version, which is empty where there is none."""


class ElfError(HesperError):
    """A file that is no library as Hesper can read it."""


@dataclass(frozen=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int


class Library:
    """A shared library, read from its bytes.  Raises `ElfError`, then and at each question."""

    def __init__(self, data: bytes, name: str) -> None:
        """`data` is the whole file; `name` stands in errors."""
        self.data = data
        """The file."""
        self._name = name
        if data[:4] != b"\x7fELF":
            raise ElfError(f"{name} is no ELF file")
        if data[4:6] != b"\x02\x01":
            raise ElfError(f"{name} is no 64-bit little-endian ELF file")
        self.machine: int
        """`e_machine`, see `MACHINES`."""
        (self.machine,) = self._unpack("<H", 18)

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(layout, self.data, offset)
        except struct.error:
            raise ElfError(f"{self._name} is cut off") from None

    @cached_property
    def _sections(self) -> list[_Section]:
        (start,) = self._unpack("<Q", 40)
        size, count = self._unpack("<HH", 58)
        if not start or size < 64:
            raise ElfError(f"{self._name} has no section headers")
        rows = (self._unpack("<IIQQQQIIQQ", start + i * size) for i in range(count))
        return [_Section(row[1], row[4], row[5], row[6]) for row in rows]

    def _section(self, kind: int) -> _Section | None:
        return next((section for section in self._sections if section.kind == kind), None)

    def _linked(self, section: _Section) -> _Section:
        if section.link >= len(self._sections):
            raise ElfError(f"{self._name} names a section that it lacks")
        return self._sections[section.link]

    def _text(self, strings: _Section, offset: int) -> str:
        start = strings.offset + offset
        end = self.data.find(b"\0", start, strings.offset + strings.size)
        if offset >= strings.size or end < 0:
            raise ElfError(f"{self._name} has a name outside of its names")
        return self.data[start:end].decode("utf-8", "replace")

    @cached_property
    def _dynamic(self) -> list[tuple[int, int, int]]:
        """Offset in the file, tag and value of each entry of the dynamic section."""
        section = self._section(_SECTION_DYNAMIC)
        if section is None:
            raise ElfError(f"{self._name} is not linked dynamically")
        entries = []
        for offset in range(section.offset, section.offset + section.size - 15, 16):
            tag, value = self._unpack("<QQ", offset)
            if tag == 0:
                break
            entries.append((offset, tag, value))
        return entries

    @cached_property
    def _strings(self) -> _Section:
        section = self._section(_SECTION_DYNAMIC)
        if section is None:
            raise ElfError(f"{self._name} is not linked dynamically")
        return self._linked(section)

    def _named(self, wanted: int) -> list[str]:
        return [
            self._text(self._strings, value) for _, tag, value in self._dynamic if tag == wanted
        ]

    @property
    def needed(self) -> list[str]:
        """Names of the libraries that it needs (DT_NEEDED)."""
        return self._named(_TAG_NEEDED)

    @property
    def soname(self) -> str:
        """The name others know it by (DT_SONAME); may be empty."""
        return next(iter(self._named(_TAG_SONAME)), "")

    @property
    def search_path(self) -> str:
        """Where it looks for what it needs before anywhere else (DT_RUNPATH, DT_RPATH)."""
        return next(iter(self._named(_TAG_RUNPATH) + self._named(_TAG_RPATH)), "")

    @cached_property
    def versions(self) -> frozenset[str]:
        """The versions that it defines: `GLIBC_2.34`."""
        return frozenset(self._defined_versions.values())

    @cached_property
    def _defined_versions(self) -> dict[int, str]:
        section = self._section(_SECTION_DEFINED)
        found: dict[int, str] = {}
        if section is None:
            return found
        strings = self._linked(section)
        for entry in self._chain(section.offset, 16):
            _, _, number, _, _, names, _ = self._unpack("<HHHHIII", entry)
            name, _ = self._unpack("<II", entry + names)
            found[number & ~_HIDDEN_VERSION] = self._text(strings, name)
        return found

    @cached_property
    def wanted_versions(self) -> dict[str, frozenset[str]]:
        """The versions that it needs, by the name of the library that has to define them."""
        return {
            file: frozenset(name for name in names.values())
            for file, names in self._needed_versions.items()
        }

    @cached_property
    def _needed_versions(self) -> dict[str, dict[int, str]]:
        section = self._section(_SECTION_NEEDED)
        found: dict[str, dict[int, str]] = {}
        if section is None:
            return found
        strings = self._linked(section)
        for entry in self._chain(section.offset, 12):
            _, _, file, first, _ = self._unpack("<HHIII", entry)
            names = found.setdefault(self._text(strings, file), {})
            for auxiliary in self._chain(entry + first, 12):
                _, flags, number, name, _ = self._unpack("<IHHII", auxiliary)
                if not flags & _WEAK:
                    names[number & ~_HIDDEN_VERSION] = self._text(strings, name)
        return found

    def _chain(self, offset: int, next_at: int) -> Iterator[int]:
        """Offsets of a list's entries, each of which says at `next_at` how far on the next is."""
        for _ in range(_MOST_STEPS):
            yield offset
            (step,) = self._unpack("<I", offset + next_at)
            if not step:
                return
            offset += step
        raise ElfError(f"{self._name} has a list without end")

    @cached_property
    def _symbols(self) -> list[tuple[str, int, bool, bool]]:
        """Name, number of its version, whether it is defined here, whether it may be missing."""
        section = self._section(_SECTION_SYMBOLS)
        if section is None:
            return []
        numbers, strings = self._section(_SECTION_VERSIONS), self._linked(section)
        found = []
        for i in range(1, section.size // 24):
            name, info, _, index, _, _ = self._unpack("<IBBHQQ", section.offset + i * 24)
            number = _GLOBAL
            if numbers is not None:
                (number,) = self._unpack("<H", numbers.offset + i * 2)
            if info >> 4 != _LOCAL:
                found.append((self._text(strings, name), number, index != 0, info >> 4 == _WEAK))
        return found

    @cached_property
    def defined(self) -> frozenset[Symbol]:
        """The symbols that it has for others."""
        names = self._defined_versions
        return frozenset(
            (name, names.get(number & ~_HIDDEN_VERSION, "") if names else "")
            for name, number, is_here, _ in self._symbols
            if is_here
        )

    @cached_property
    def wanted(self) -> frozenset[Symbol]:
        """The symbols that it must find in others."""
        names = {n: name for by in self._needed_versions.values() for n, name in by.items()}
        return frozenset(
            (name, names.get(number & ~_HIDDEN_VERSION, ""))
            for name, number, is_here, may_lack in self._symbols
            if not is_here and not may_lack
        )

    def provides(self, symbol: Symbol) -> bool:
        """Whether the dynamic linker would take `symbol` from here."""
        name, version = symbol
        # A library without versions serves those who ask for one; whoever asks for none takes any.
        if version and self._defined_versions:
            return symbol in self.defined
        return name in self._defined_names

    @cached_property
    def _defined_names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.defined)

    def with_search_path(self, folder: str) -> bytes:
        """The same library, looking in `folder` first for what it and its libraries need.

        DT_RPATH holds for what libraries need in turn, unlike DT_RUNPATH.  It takes the place of
        the library's own name, in the table of names too, since no room is left for one more: a
        driver is opened by its path, and nobody asks for its name.  Raises `ElfError` where that
        cannot be.
        """
        if self.search_path:
            raise ElfError(f"{self._name} has a search path of its own, {self.search_path}")
        entry = next((each for each in self._dynamic if each[1] == _TAG_SONAME), None)
        if entry is None:
            raise ElfError(f"{self._name} has no name (DT_SONAME) that could give way")
        name, text = self.soname.encode(), folder.encode()
        if len(text) > len(name):
            raise ElfError(f"{self._name}: the name {self.soname} is too short for {folder}")
        offset, _, value = entry
        inside = range(value + 1, value + len(name) + 1)
        if any(start in inside for start in self._name_offsets()):
            raise ElfError(f"{self._name}: a part of the name {self.soname} is another name, too")
        data = bytearray(self.data)
        struct.pack_into("<Q", data, offset, _TAG_RPATH)
        start = self._strings.offset + value
        data[start : start + len(name)] = text.ljust(len(name), b"\0")
        return bytes(data)

    def _name_offsets(self) -> Iterator[int]:
        """Where names begin that symbols and libraries have."""
        for _, tag, value in self._dynamic:
            if tag == _TAG_NEEDED:
                yield value
        section = self._section(_SECTION_SYMBOLS)
        if section is not None:
            for i in range(1, section.size // 24):
                yield self._unpack("<I", section.offset + i * 24)[0]
