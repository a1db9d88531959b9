"""What a library says of itself is read as the dynamic linker reads it."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libraries import DRIVER, compile_library

from hesper.containers import elf
from hesper.containers.driver_set import DriverSet, mesa_version
from hesper.containers.elf import ElfError, Library


def read(path: Path) -> Library:
    return Library(path.read_bytes(), path.name)


def test_a_library_is_read(driver_set: DriverSet) -> None:
    driver = driver_set.library(DRIVER)
    assert driver.machine in {"x86_64", "aarch64"}
    assert (driver.soname, driver.search_path) == (DRIVER, "")
    assert driver.needed == ["libwindow.so.1", "libc.so.6"]
    assert driver.wanted_versions == {"libc.so.6": {"GLIBC_2.2.5", "GLIBC_2.34"}}
    assert driver.wanted == {
        ("window", ""),
        ("old_function", "GLIBC_2.2.5"),
        ("new_function", "GLIBC_2.34"),
    }
    assert {("driver", ""), ("version", "")} <= driver.defined
    assert mesa_version(driver) == (25, 0)
    glibc = read(Path(driver_set.folder).parent / "glibc" / "libc.so.6")
    assert glibc.versions >= {"GLIBC_2.2.5", "GLIBC_2.34"}
    assert glibc.provides(("new_function", "GLIBC_2.34"))
    assert not glibc.provides(("new_function", "GLIBC_2.2.5"))
    assert glibc.provides(("new_function", "")), "who asks for no version takes any"
    assert driver.provides(("driver", "V_1")), "a library without versions serves all"
    assert not driver.provides(("window", "")), "it only uses that"


def test_a_search_path_is_what_the_linker_looks_in(tmp_path: Path) -> None:
    """It holds for what its libraries need in turn; without it they are not found."""
    libraries = tmp_path / "libs"
    inner = compile_library(libraries / "libinner_of_this_test.so", "int inner(void){return 41;}")
    outer = compile_library(
        libraries / "libouter_of_this_test.so",
        "int inner(void); int outer(void){return inner();}",
        libraries=[inner],
    )
    name = "lib_whose_name_is_long_enough_for_the_folder_that_the_libraries_of_this_test_lie_in.so"
    name = name.rjust(len(str(libraries)), "x")
    top = compile_library(
        tmp_path / "top.so",
        "int outer(void); int top(void){return outer() + 1;}",
        libraries=[outer],
        soname=name,
    )
    call = [sys.executable, "-c", "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).top())"]
    done = subprocess.run([*call, top], capture_output=True, text=True, check=False)
    assert "libouter_of_this_test.so" in done.stderr
    top.write_bytes(read(top).with_search_path(str(libraries)))
    done = subprocess.run([*call, top], capture_output=True, text=True, check=False)
    assert done.stdout == "42\n", done.stderr
    changed = read(top)
    assert (changed.search_path, changed.soname) == (str(libraries), "")
    with pytest.raises(ElfError, match="has a search path of its own"):
        changed.with_search_path("/x")


def test_a_search_path_that_cannot_be_is_refused(tmp_path: Path, driver_set: DriverSet) -> None:
    with pytest.raises(ElfError, match=r"the name libvulkan_virtio\.so is too short for /a/folder"):
        driver_set.library(DRIVER).with_search_path("/a/folder/longer/than/that")
    # Linkers keep one text for two names where one ends like the other.
    shared = compile_library(
        tmp_path / "a.so",
        "int virtio_function(void){return 1;}",
        soname="libvulkan_virtio_function",
    )
    with pytest.raises(ElfError, match="is another name, too"):
        read(shared).with_search_path("/run/x")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is no ELF file"),
        (b"#!/bin/sh\n", "is no ELF file"),
        (b"\x7fELF\x01\x01" + bytes(60), "is no 64-bit little-endian ELF file"),
        (b"\x7fELF\x02\x01", "is broken: "),
        (b"\x7fELF\x02\x01" + bytes(60), "has no section headers"),
    ],
)
def test_what_is_no_library_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ElfError, match=says):
        _ = Library(data, "it").needed


def questions(data: bytes) -> None:
    """All that is asked of libraries; `ElfError` is an answer."""
    try:
        library = Library(data, "it")
    except ElfError:
        return
    for question in (
        "needed",
        "soname",
        "search_path",
        "versions",
        "wanted_versions",
        "defined",
        "wanted",
    ):
        try:
            getattr(library, question)
        except ElfError:
            continue
    with contextlib.suppress(ElfError):
        library.with_search_path("/run/x")


@given(at=st.floats(0, 1, exclude_max=True), value=st.binary(min_size=1, max_size=8))
def test_whatever_is_changed_it_is_read_or_refused(
    driver_set: DriverSet, at: float, value: bytes
) -> None:
    data = bytearray(driver_set.library(DRIVER).data)
    start = int(at * len(data))
    data[start : start + len(value)] = value
    questions(bytes(data))


@given(at=st.floats(0, 1), value=st.integers(0, 2**64 - 1), field=st.integers(0, 7))
def test_whatever_its_section_headers_say_it_is_read_or_refused(
    driver_set: DriverSet, at: float, value: int, field: int
) -> None:
    data = bytearray(driver_set.library(DRIVER).data)
    (start,) = struct.unpack_from("<Q", data, 40)
    (count,) = struct.unpack_from("<H", data, 60)
    struct.pack_into("<Q", data, start + int(at * (count - 1)) * 64 + field * 8, value)
    questions(bytes(data))


@pytest.mark.parametrize("part", range(0, 100, 3))
def test_wherever_it_is_cut_it_is_read_or_refused(driver_set: DriverSet, part: int) -> None:
    data = driver_set.library(DRIVER).data
    questions(data[: len(data) * part // 100])


def named_by_all(data: bytes, size: int) -> bytes:
    """The library `data` with a table of names of `size` bytes without an end to any of them."""
    changed = bytearray(data)
    (start,) = struct.unpack_from("<Q", changed, 40)
    (count,) = struct.unpack_from("<H", changed, 60)
    dynsym = next(
        start + 64 * i
        for i in range(count)
        if struct.unpack_from("<I", changed, start + 64 * i + 4)[0] == 11
    )
    (names,) = struct.unpack_from("<I", changed, dynsym + 40)
    struct.pack_into("<QQ", changed, start + 64 * names + 24, len(changed), size)
    return bytes(changed) + b"x" * (size - 1) + b"\0"


def test_names_have_an_end(driver_set: DriverSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a hostile library's could be all of the file, for as many as it has."""
    data = driver_set.library(DRIVER).data
    assert all(len(name) > 4000 for name, _ in Library(named_by_all(data, 5000), "it").defined)
    monkeypatch.setattr(elf, "_MOST_READ", 20_000)
    assert Library(data, "it").defined
    with pytest.raises(ElfError, match="names without end"):
        _ = Library(named_by_all(data, 5000), "it").defined


def test_lists_have_an_end(driver_set: DriverSet, monkeypatch: pytest.MonkeyPatch) -> None:
    data = driver_set.library(DRIVER).data
    monkeypatch.setattr(elf, "_MOST_OTHERS", 3)
    for question in ("needed", "versions", "defined"):
        with pytest.raises(ElfError, match="a list without end"):
            getattr(Library(data, "it"), question)
