"""An image's paths are followed as its programs would, and never out of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from libraries import compile_glibc, compile_library

from hesper.containers import rootfs
from hesper.containers.elf import Library
from hesper.containers.inside import PathError
from hesper.containers.rootfs import Root, RootError


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    folder = tmp_path / "root"
    (folder / "usr").mkdir(parents=True)
    (folder / "usr/file").write_text("of the image")
    for name, target in {
        "absolute": str(secret),
        "upwards": "../../../../../../../.." + str(secret),
        "parent": "..",
        "good": "/usr/file",
        "relative": "usr/../usr/file",
        "folder": "/usr",
        "loop": "loop",
        "round": "/about",
        "about": "round",
    }.items():
        (folder / name).symlink_to(target)
    (folder / "usr/up").symlink_to("../../../..")
    root = Root(folder, {})
    assert root.read("/absolute") is None
    assert root.read("/upwards") is None
    assert root.read(f"/parent/parent{secret}") is None
    assert root.read("/../../usr/./file") == b"of the image"
    assert root.read("/good") == root.read("/relative") == b"of the image"
    assert root.read("/folder/up/usr/up/good") == b"of the image"
    assert root.read("/parent/usr/file") == b"of the image"
    for name in ("/loop", "/round"):
        with pytest.raises(PathError, match="too many links in the image"):
            root.read(name)


def test_what_is_no_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "empty").touch()
    root = Root(tmp_path, {})
    assert root.read("/empty") is None
    assert Root(Path("/"), {}).read("/proc/self/status") is None
    assert [root.read(f"/{name}") for name in ("pipe", "folder", "none", "file/more")] == [None] * 4
    assert root.read("/a\0b") is None
    assert root.read("/file") == b"12345"
    monkeypatch.setattr(rootfs, "MOST_BYTES", 4)
    assert root.read("/file") is None
    assert root.files("/file", "") == root.files("/none", "") == []


def test_an_image_has_only_so_much_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    root = Root(tmp_path, {})
    monkeypatch.setattr(rootfs, "MOST_TEXT", 99)
    assert root.text("/file") is None
    assert root.read("/file") == bytes(100)
    monkeypatch.setattr(rootfs, "MOST_IN_ALL", 250)
    root = Root(tmp_path, {})
    assert root.read("/file") == root.read("/file")
    with pytest.raises(RootError, match="too much"):
        root.read("/file")


def test_what_names_folders_has_an_end(tmp_path: Path) -> None:
    """Files that include all of each other would be read a thousand million times."""
    folder = tmp_path / "etc/ld.so.conf.d"
    folder.mkdir(parents=True)
    text = "include ld.so.conf.d/*.conf\n" * 40
    (tmp_path / "etc/ld.so.conf").write_text(text)
    for number in range(40):
        (folder / f"{number}.conf").write_text(text)
    with pytest.raises(RootError, match="too many files"):
        Root(tmp_path, {}).library_folders("x86_64")
    (tmp_path / "etc/ld.so.conf").write_text("include ld.so.conf.d/*.conf\n")
    for number in range(40):
        lines = (f"/opt/{number}/{line}" for line in range(40))
        (folder / f"{number}.conf").write_text("\n".join(lines))
    with pytest.raises(RootError, match="has libraries in"):
        Root(tmp_path, {}).library_folders("x86_64")


def test_libraries_are_found_where_the_dynamic_linker_looks(tmp_path: Path) -> None:
    machine = Library(compile_glibc(tmp_path / "lib64/libc.so.6").read_bytes(), "").machine
    (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf").write_text("include ld.so.conf.d/*.conf\n/opt/first  # mine\n")
    (tmp_path / "etc/ld.so.conf.d/a.conf").write_text("/opt/included\ninclude /etc/ld.so.conf\n")
    (tmp_path / "etc/ld.so.conf.d/a.txt").write_text("/opt/other\n")
    root = Root(tmp_path, {"LD_LIBRARY_PATH": ":/opt/variable:relative"})
    folders = root.library_folders(machine)
    assert folders[:3] == ["/opt/variable", "/opt/included", "/opt/first"]
    assert folders[-4:] == ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    assert "/opt/other" not in folders
    assert not any(folder.startswith("relative") for folder in folders)
    # One for another machine is passed over, as is what is none.
    wrong = bytearray((tmp_path / "lib64/libc.so.6").read_bytes())
    wrong[18] ^= 0xFF
    for folder, data in (("variable", bytes(wrong)), ("included", b"#!/bin/sh")):
        (tmp_path / "opt" / folder).mkdir(parents=True)
        (tmp_path / "opt" / folder / "libfound.so.1").write_bytes(data)
    assert root.library("libfound.so.1", machine) is None
    compile_library(tmp_path / "opt/first/libfound.so.1", "int found(void){return 1;}")
    found = Root(tmp_path, {}).library("libfound.so.1", machine)
    assert found is not None
    assert found.provides(("found", ""))
    assert root.library("/lib64/libc.so.6", machine) is not None


def test_what_an_image_is_for_is_known_by_its_programs(tmp_path: Path) -> None:
    root = Root(tmp_path, {})
    assert root.machine() is None
    assert not root.has_musl()
    machine = Library(compile_glibc(tmp_path / "lib64/libc.so.6").read_bytes(), "").machine
    shutil.copy(tmp_path / "lib64/libc.so.6", tmp_path / "lib64/ld-linux-x86-64.so.2")
    assert root.machine() == machine
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").write_text("#!/bin/other\n")
    assert root.machine() == machine, "a script says nothing"
    (tmp_path / "bin/sh").write_bytes(b"\x7fELF\x02\x01" + bytes(12) + b"\xb7\0" + bytes(44))
    assert root.machine() == "aarch64"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/ld-musl-aarch64.so.1").write_text("")
    assert root.has_musl()


def test_a_library_it_finds_is_the_one_that_programs_get() -> None:
    """Held against this machine's own dynamic linker, for libraries that every machine has."""
    root = Root(Path("/"), {})
    shell = root.read("/bin/sh")
    assert shell is not None
    machine = Library(shell, "sh").machine
    assert root.machine() == machine
    found = root.library("libc.so.6", machine)
    assert found is not None
    listed = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in listed.splitlines() if "libc.so.6" in line]
    assert Path(line.split()[2]).read_bytes() == found.data
