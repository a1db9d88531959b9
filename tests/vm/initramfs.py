"""Builds a guest that boots in seconds: a kernel's modules, busybox, Mesa's Venus driver, programs.

Everything comes out of a *tree*: the root folder of a Debian of this machine's architecture that
has a kernel, `busybox-static`, `mesa-vulkan-drivers` and `vulkan-tools` installed.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hesper.portable import architecture

MODULES = (
    "virtio-gpu",
    "9p",
    "9pnet_virtio",
    "overlay",
    "xhci-pci",
    "virtio-input",
    "usbhid",
    "hid-generic",
    "evdev",
    "button",
)
"""The GPU; for a root file system from outside; for keyboard, pointer and the power button."""
_MULTIARCH = f"{architecture()}-linux-gnu"
LIBRARY_FOLDERS = (f"usr/lib/{_MULTIARCH}", f"lib/{_MULTIARCH}", "usr/lib", "lib64")
VENUS_ICD = "usr/share/vulkan/icd.d/virtio_icd.json"

_NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[(.+)\]")
_INTERPRETER = re.compile(r"Requesting program interpreter: (.+)\]")


@dataclass
class Tree:
    """A Debian's root folder."""

    root: Path

    @property
    def modules(self) -> Path:
        """The folder of the newest kernel's modules."""
        return max(self.root.glob("usr/lib/modules/*"))

    @property
    def kernel(self) -> Path:
        """The newest kernel's image: beside its modules, or where Debian 13's own has it."""
        beside = self.modules / "vmlinuz"
        return beside if beside.exists() else self.root / f"boot/vmlinuz-{self.modules.name}"

    def module(self, name: str) -> Path:
        """Return the file of a kernel module."""
        folder = self.modules
        wanted = {name.replace("-", "_"), name.replace("_", "-"), name}
        for path in folder.rglob("*.ko*"):
            if path.name.partition(".ko")[0] in wanted:
                return path
        raise FileNotFoundError(f"no module {name} in {folder}")

    def is_built_in(self, name: str) -> bool:
        """Whether the kernel has a module in itself, as kernels of different architectures do."""
        lines = (self.modules / "modules.builtin").read_text().splitlines()
        plain = name.replace("-", "_")
        return any(PurePosixPath(line).stem.replace("-", "_") == plain for line in lines)

    def library(self, name: str) -> PurePosixPath:
        """Return where a shared library lies, from the root."""
        for folder in LIBRARY_FOLDERS:
            if (self.root / folder / name).exists():
                return PurePosixPath("/") / folder / name
        raise FileNotFoundError(f"no library {name} in {self.root}")


@dataclass
class Initramfs:
    """What goes into the archive: path in the guest to mode and content."""

    tree: Tree
    files: dict[PurePosixPath, tuple[int, bytes]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    """Names in the order in which to load them."""

    def add(self, path: str | PurePosixPath, data: bytes, mode: int = 0o644) -> None:
        """Add a file and the folders above it."""
        where = PurePosixPath("/") / path
        for parent in reversed(where.parents[:-1]):
            self.files.setdefault(parent, (stat.S_IFDIR | 0o755, b""))
        self.files[where] = (stat.S_IFREG | mode, data)

    def add_from_tree(self, path: str) -> None:
        """Add a file of the tree under its own name, and the libraries it needs."""
        source = self.tree.root / path
        data = source.read_bytes()
        self.add(path, data, source.stat().st_mode & 0o777)
        if data.startswith(b"\x7fELF"):
            self.add_libraries(source)

    def add_program(self, path: str, source: Path) -> None:
        """Add a program from outside of the tree; its libraries are the tree's."""
        data = source.read_bytes()
        self.add(path, data, 0o755)
        if data.startswith(b"\x7fELF"):
            self.add_libraries(source)

    def add_libraries(self, binary: Path) -> None:
        """Add what `binary` is linked to."""
        listing = subprocess.run(
            ["readelf", "-ld", binary], capture_output=True, text=True, check=True
        ).stdout
        for interpreter in _INTERPRETER.findall(listing):
            self._add_library(PurePosixPath(interpreter))
        for name in _NEEDED.findall(listing):
            self._add_library(self.tree.library(name))

    def _add_library(self, path: PurePosixPath) -> None:
        if path in self.files:
            return
        source = self.tree.root / path.relative_to("/")
        # A link of the tree may be absolute: it is the tree's root that it means.
        while source.is_symlink():
            target = source.readlink()
            base = self.tree.root if target.is_absolute() else source.parent
            source = base / (target.relative_to("/") if target.is_absolute() else target)
        self.add(path, source.read_bytes(), 0o755)
        self.add_libraries(source)

    def add_module(self, name: str) -> None:
        """Add a kernel module, unpacked, after the modules it needs; none that is built in."""
        if self.tree.is_built_in(name):
            return
        path = self.tree.module(name)
        plain = path.name.partition(".ko")[0]
        if plain in self.modules:
            return
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        elif path.suffix == ".gz":
            data = gzip.decompress(data)
        depends = re.search(rb"\0depends=([^\0]*)\0", b"\0" + data)
        for needed in (depends[1].decode() if depends else "").split(","):
            if needed:
                self.add_module(needed)
        self.modules.append(plain)
        self.add(f"modules/{plain}.ko", data)

    def write(self, path: Path) -> None:
        """Write the archive (`newc` cpio, gzip)."""
        with gzip.open(path, "wb", compresslevel=1) as out:
            entries = [*sorted(self.files.items()), *_TRAILER]
            for inode, (where, (mode, data)) in enumerate(entries, 1):
                name = os.fsencode(str(where).removeprefix("/")) + b"\0"
                numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
                header = b"070701" + b"".join(b"%08X" % number for number in numbers)
                out.write(_padded(header + name) + _padded(data))


_TRAILER = [(PurePosixPath("TRAILER!!!"), (0, b""))]

_INIT = """#!/bin/busybox sh
# Loads the driver, then does what comes over the serial port, line by line.
export PATH=/bin:/usr/bin:/sbin:/usr/sbin
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts; mount -t tmpfs shm /dev/shm; mount -t devpts pts /dev/pts
load() {{ for m in {modules}; do insmod /modules/$m.ko || echo "insmod $m failed"; done; }}
export XDG_RUNTIME_DIR=/tmp HOME=/root
stty -echo
load
echo "guest: ready"
while read -r line; do
    eval "$line"
    echo "guest: done $?"
done
poweroff -f
"""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def build(
    tree: Tree,
    path: Path,
    *,
    programs: Iterable[Path] = (),
    from_tree: Iterable[str] = (),
    modules: Iterable[str] = (),
) -> None:
    """Write an initramfs with virtio-gpu, Venus and the Vulkan loader.

    Its init takes orders from the console.  programs: go into `/bin`.  from_tree: files of the
    tree that go where they are there.  modules: kernel modules besides `MODULES`.
    """
    archive = Initramfs(tree)
    archive.add("bin/busybox", (tree.root / "usr/bin/busybox").read_bytes(), 0o755)
    for module in (*MODULES, *modules):
        archive.add_module(module)
    archive.add_from_tree(VENUS_ICD)
    for library in ("libvulkan_virtio.so", "libvulkan.so.1"):
        archive.add_from_tree(str(tree.library(library)).removeprefix("/"))
    for source in programs:
        archive.add_program(f"bin/{source.name}", source)
    for name in from_tree:
        archive.add_from_tree(name)
    archive.add("init", _INIT.format(modules=" ".join(archive.modules)).encode(), 0o755)
    archive.write(path)
