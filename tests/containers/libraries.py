"""Shared libraries and roots of containers that tests make."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hesper.containers.driver_set import DriverSet

DRIVER = "libvulkan_virtio.so"
LOADER = "libvulkan.so.1"

C_LIBRARY = """
int old_function(void) { return 1; }
int new_function(void) { return 2; }
"""


def compile_library(
    path: Path,
    source: str = "",
    *,
    versions: str = "",
    libraries: Sequence[Path] = (),
    soname: str | None = None,
) -> Path:
    """Compile a library that uses nothing but `libraries`; versions: a linker's version script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    script = path.with_suffix(".map")
    script.write_text(versions)
    arguments: list[str | Path] = [
        "cc",
        "-shared",
        "-fPIC",
        "-nostdlib",
        "-o",
        path,
        "-x",
        "c",
        "-",
        "-x",
        "none",
    ]
    arguments += [f"-Wl,-soname,{soname or path.name}", *libraries]
    if versions:
        arguments.append(f"-Wl,--version-script={script}")
    subprocess.run(arguments, input=source, text=True, check=True)
    script.unlink()
    return path


def compile_glibc(path: Path, newest: str = "GLIBC_2.34") -> Path:
    """What counts as a glibc here: it defines GLIBC_2.2.5 and, if asked for, GLIBC_2.34."""
    old = "GLIBC_2.2.5 { global: old_function; local: *; };"
    if newest == "GLIBC_2.2.5":
        return compile_library(path, C_LIBRARY, versions=old, soname="libc.so.6")
    new = f"{newest} {{ global: new_function; }} GLIBC_2.2.5;"
    return compile_library(path, C_LIBRARY, versions=old + new, soname="libc.so.6")


def make_driver_set(folder: Path, version: str = "25.0.7") -> DriverSet:
    """A set like the one of Mesa's driver: it needs libwindow, which needs libprotocol."""
    made = DriverSet(str(folder), DRIVER, "1.4.305", ("libprotocol.so.1", "libwindow.so.1"), LOADER)
    glibc = compile_glibc(folder.parent / "glibc" / "libc.so.6")
    protocol = compile_library(
        folder / "libprotocol.so.1",
        "int protocol_old(void){return 1;} int protocol_new(void){return 2;}",
    )
    window = compile_library(
        folder / "libwindow.so.1",
        "int protocol_new(void); int window(void){return protocol_new();}",
        libraries=[protocol],
    )
    compile_library(
        folder / DRIVER,
        f'const char *version = "Mesa {version}";'
        "int window(void); int new_function(void); int old_function(void);"
        "int driver(void){return window() + new_function() + old_function();}",
        libraries=[window, glibc],
    )
    compile_library(
        folder / LOADER,
        "int old_function(void); int load(void){return old_function();}",
        libraries=[glibc],
    )
    (folder / "set.json").write_text(
        json.dumps(
            {
                "folder": str(folder),
                "driver": DRIVER,
                "api_version": "1.4.305",
                "libraries": list(made.libraries),
                "loader": LOADER,
            }
        )
    )
    return made


def make_root(folder: Path, *, newest: str = "GLIBC_2.34") -> Path:
    """A container's root with a shell and a glibc."""
    compile_glibc(folder / "lib64" / "libc.so.6", newest)
    (folder / "etc").mkdir()
    (folder / "bin").mkdir()
    shutil.copy(folder / "lib64" / "libc.so.6", folder / "bin" / "sh")
    return folder


def add_driver(root: Path, version: str, name: str = "virtio_icd.json") -> Path:
    """Put a Venus driver of Mesa's `version` into a root; the path of its manifest."""
    compile_library(root / "lib64" / DRIVER, f'const char *version = "Mesa {version}-1";')
    manifest = root / "usr/share/vulkan/icd.d" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    icd = {"library_path": DRIVER, "api_version": "1.3.290"}
    manifest.write_text(json.dumps({"file_format_version": "1.0.0", "ICD": icd}))
    return manifest
