"""What a shared library says of itself: its machine, what it needs, what it defines.

Read by pyelftools (System V ABI, chapters 4 and 5; "Symbol Versioning" of the Linux Standard Base)
are 64-bit little-endian files with section headers, which is what Mesa's Venus is built for.  A
library may lie in an image that nobody vouches for: what does not fit is an `ElfError`, and lists
without end have one here.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TypeVar

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection, DynamicTag
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import Section, SymbolTableSection

from hesper.errors import HesperError

_MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_386": "i386",
    "EM_ARM": "arm",
    "EM_RISCV": "riscv64",
    "EM_PPC64": "ppc64",
}

_TAG_RPATH = 15
_WEAK = 2
_HIDDEN_VERSION = 0x8000
_MOST_SYMBOLS = 1 << 20
"""Entries of a list that are followed; a hostile one may have no end."""
_MOST_OTHERS = 1 << 12
"""The same of lists that are short and whose entries take much memory."""
_MOST_READ = 64 << 20
"""Bytes that the reader takes in, several times what the largest libraries have in symbols: each
entry of a hostile one may be named by all of the file."""

Symbol = tuple[str, str]
"""Name and version, which is empty where there is none."""

S = TypeVar("S", bound=Section)
T = TypeVar("T")


class ElfError(HesperError):
    """A file that is no library as Hesper can read it."""


class _Metered(io.BytesIO):
    """A file of which only so much is read, over and over again included."""

    def __init__(self, data: bytes, name: str) -> None:
        """`name` stands in errors."""
        super().__init__(data)
        self._name = name
        self._left = _MOST_READ

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.BytesIO`.  Raises `ElfError` where it is too much."""
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ElfError(f"{self._name} has names without end")
        return data


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
        with self._reading():
            self._file = ELFFile(_Metered(data, name))
        self.machine = _machine(self._file)
        """What it is for, as its users call it: x86_64."""

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Say of whatever the reader stumbles on that the file is broken."""
        try:
            yield
        except ElfError:
            raise
        except (ELFError, ArithmeticError, AssertionError, AttributeError, LookupError) as error:
            raise ElfError(f"{self._name} is broken: {error}") from None
        except (MemoryError, OSError, TypeError, ValueError, struct.error) as error:
            raise ElfError(f"{self._name} is broken: {error}") from None

    def _bounded(self, entries: Iterable[T], most: int) -> Iterator[T]:
        """Yield `entries`, which a file may make as many as it likes."""
        for number, entry in enumerate(entries):
            if number == most:
                raise ElfError(f"{self._name} has a list without end")
            yield entry

    @cached_property
    def _sections(self) -> list[Section]:
        with self._reading():
            if not self._file["e_shoff"]:
                raise ElfError(f"{self._name} has no section headers")
            return list(self._bounded(self._file.iter_sections(), _MOST_OTHERS))

    def _section(self, kind: type[S]) -> S | None:
        return next((each for each in self._sections if type(each) is kind), None)

    @cached_property
    def _symbol_table(self) -> SymbolTableSection | None:
        tables = (each for each in self._sections if isinstance(each, SymbolTableSection))
        return next((each for each in tables if each["sh_type"] == "SHT_DYNSYM"), None)

    @cached_property
    def _dynamic(self) -> list[DynamicTag]:
        """The entries of the dynamic section, in their order."""
        section = self._section(DynamicSection)
        if section is None:
            raise ElfError(f"{self._name} is not linked dynamically")
        with self._reading():
            return list(self._bounded(section.iter_tags(), _MOST_OTHERS))

    def _named(self, wanted: str) -> list[str]:
        return [getattr(each, wanted) for each in self._dynamic if hasattr(each, wanted)]

    @property
    def needed(self) -> list[str]:
        """Names of the libraries that it needs (DT_NEEDED)."""
        return self._named("needed")

    @property
    def soname(self) -> str:
        """The name others know it by (DT_SONAME); may be empty."""
        return next(iter(self._named("soname")), "")

    @property
    def search_path(self) -> str:
        """Where it looks for what it needs before anywhere else (DT_RUNPATH, DT_RPATH)."""
        return next(iter(self._named("runpath") + self._named("rpath")), "")

    @cached_property
    def versions(self) -> frozenset[str]:
        """The versions that it defines: `GLIBC_2.34`."""
        return frozenset(self._defined_versions.values())

    @cached_property
    def _defined_versions(self) -> dict[int, str]:
        section = self._section(GNUVerDefSection)
        found: dict[int, str] = {}
        if section is not None:
            with self._reading():
                for version, names in self._bounded(section.iter_versions(), _MOST_OTHERS):
                    # The first is its own name; those after it are of versions it comes from.
                    found[version["vd_ndx"] & ~_HIDDEN_VERSION] = next(names).name
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
        section = self._section(GNUVerNeedSection)
        found: dict[str, dict[int, str]] = {}
        if section is not None:
            with self._reading():
                for version, wanted in self._bounded(section.iter_versions(), _MOST_OTHERS):
                    names = found.setdefault(version.name or "", {})
                    for each in wanted:
                        if not each["vna_flags"] & _WEAK:
                            names[each["vna_other"] & ~_HIDDEN_VERSION] = each.name
        return found

    @cached_property
    def _symbols(self) -> list[tuple[str, int, bool, bool]]:
        """Name, number of its version, whether it is defined here, whether it may be missing."""
        table, numbers = self._symbol_table, self._section(GNUVerSymSection)
        found: list[tuple[str, int, bool, bool]] = []
        if table is None:
            return found
        with self._reading():
            every = self._bounded(table.iter_symbols(), _MOST_SYMBOLS)
            for i, symbol in enumerate(every):
                binding = symbol["st_info"]["bind"]
                if i == 0 or binding == "STB_LOCAL":
                    continue
                number = 1 if numbers is None else _number(numbers.get_symbol(i)["ndx"])
                is_here = symbol["st_shndx"] != "SHN_UNDEF"
                found.append((symbol.name, number, is_here, binding == "STB_WEAK"))
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
        entries = enumerate(each["d_tag"] for each in self._dynamic)
        at = next((number for number, tag in entries if tag == "DT_SONAME"), None)
        if at is None:
            raise ElfError(f"{self._name} has no name (DT_SONAME) that could give way")
        name, text = self.soname.encode(), folder.encode()
        if len(text) > len(name):
            raise ElfError(f"{self._name}: the name {self.soname} is too short for {folder}")
        value = self._dynamic[at]["d_val"]
        inside = range(value + 1, value + len(name) + 1)
        if any(start in inside for start in self._name_offsets()):
            raise ElfError(f"{self._name}: a part of the name {self.soname} is another name, too")
        data = bytearray(self.data)
        section = self._section(DynamicSection)
        assert section is not None  # or there were no entries
        with self._reading():
            struct.pack_into("<Q", data, section["sh_offset"] + at * 16, _TAG_RPATH)
            start = self._sections[section["sh_link"]]["sh_offset"] + value
            if data[start : start + len(name)] != name:
                raise ElfError(f"{self._name} has its name elsewhere than it says")
        data[start : start + len(name)] = text.ljust(len(name), b"\0")
        return bytes(data)

    def _name_offsets(self) -> Iterator[int]:
        """Where names begin that symbols and libraries have."""
        for each in self._dynamic:
            if each["d_tag"] == "DT_NEEDED":
                yield each["d_val"]
        if self._symbol_table is not None:
            with self._reading():
                every = self._symbol_table.iter_symbols()
                symbols = self._bounded(every, _MOST_SYMBOLS)
                for symbol in itertools.islice(symbols, 1, None):
                    yield symbol["st_name"]


def machine_of(data: bytes) -> str | None:
    """What a program or library of any kind is for: x86_64.  None if it is none."""
    try:
        return _machine(ELFFile(_Metered(data, "it")))
    except (ElfError, ELFError, LookupError, OSError, TypeError, ValueError):
        return None


def _machine(file: ELFFile) -> str:
    value = file["e_machine"]
    return _MACHINES.get(value, f"machine {value}")


def _number(index: int | str) -> int:
    """Of a version, of which the reader gives the first two names."""
    return ("VER_NDX_LOCAL", "VER_NDX_GLOBAL").index(index) if isinstance(index, str) else index
