"""`hesper guest build` without mmdebstrap: what is not Debian's installer's own."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import lzma
import queue
import re
import subprocess
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from initramfs import Tree

from hesper.vm import installer, mmdebstrap, netboot
from hesper.vm.firmware import Firmware
from hesper.vm.guest_image import ImageError, ImageOptions, write_files
from hesper.vm.image_builder import build_image
from hesper.vm.qemu import Qemu

SUITE = "trixie"
IMAGES = f"dists/{SUITE}/main/installer-arm64/current/images"
FILES = f"{IMAGES}/netboot/debian-installer/arm64"


@dataclass
class Mirror:
    """What a server has, by its paths; `address` is the server's."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)

    def sign(self) -> None:
        """Make the lists, each of which has the sums of what is below."""
        lines = []
        for name in ("linux", "initrd.gz"):
            digest = hashlib.sha256(self.files[f"{FILES}/{name}"]).hexdigest()
            lines.append(f"{digest}  ./netboot/debian-installer/arm64/{name}")
        sums = "\n".join(lines).encode()
        self.files[f"{IMAGES}/SHA256SUMS"] = sums
        digest = hashlib.sha256(sums).hexdigest()
        place = IMAGES.removeprefix(f"dists/{SUITE}/")
        self.files[f"dists/{SUITE}/InRelease"] = f"SHA256:\n {digest} 9 {place}/SHA256SUMS".encode()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror of the installer alone; what is in it counts as signed."""
    place = Mirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = place.files.get(self.path.lstrip("/"))
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place.address = f"http://127.0.0.1:{server.server_port}"
    place.files = {f"{FILES}/linux": b"kernel", f"{FILES}/initrd.gz": gzip.compress(b"", mtime=0)}
    place.sign()
    (tmp_path / "bin").mkdir()
    gpgv = tmp_path / "bin/gpgv"
    gpgv.write_text('#!/bin/sh\ncp "$5" "$4"\n')
    gpgv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    monkeypatch.setattr(netboot, "KEYRINGS", (gpgv,))
    yield place
    server.shutdown()
    server.server_close()


def ignore(_: str) -> None:
    """What is told is of no interest."""


def fetched(mirror: Mirror, folder: Path) -> list[bytes]:
    """What comes of it."""
    return [
        path.read_bytes() for path in netboot.fetch(mirror.address, SUITE, "arm64", folder, ignore)
    ]


def test_what_is_fetched_is_what_is_listed(mirror: Mirror, tmp_path: Path) -> None:
    assert fetched(mirror, tmp_path) == [b"kernel", gzip.compress(b"", mtime=0)]


@pytest.mark.parametrize("name", ["linux", "initrd.gz", "SHA256SUMS"])
def test_what_was_changed_is_refused(mirror: Mirror, tmp_path: Path, name: str) -> None:
    path = f"{IMAGES}/{name}" if name.isupper() or "SUMS" in name else f"{FILES}/{name}"
    mirror.files[path] += b"\n"
    steps: list[str] = []
    with pytest.raises(ImageError, match=r"cannot fetch .*/Packages.xz: Not Found"):
        netboot.fetch(mirror.address, SUITE, "arm64", tmp_path, steps.append)
    assert f"{name} is not what Debian has signed" in steps[-1]


@pytest.mark.parametrize("changed", [False, True])
def test_a_mirror_may_have_packages_alone(mirror: Mirror, tmp_path: Path, *, changed: bool) -> None:
    mirror.files = {path: data for path, data in mirror.files.items() if "/images" not in path}
    folder = "./usr/lib/debian-installer/images/13/arm64"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as archive:
        for kind in ("gtk", "text"):
            for name in netboot.FILES:
                entry = tarfile.TarInfo(f"{folder}/{kind}/debian-installer/arm64/{name}")
                data = f"{kind} {name}".encode()
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    # Members of odd sizes are filled up.
    members = (("debian-binary", b"2.0"), ("data.tar.xz", content.getvalue()))
    package = b"!<arch>\n" + b"".join(
        f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        + data
        + bytes(len(data) % 2)
        for name, data in members
    )
    about = {
        "Package": "debian-installer-13-netboot-arm64",
        "Filename": "pool/installer.deb",
        "SHA256": hashlib.sha256(package).hexdigest(),
    }
    text = "\n".join(f"{key}: {value}" for key, value in about.items())
    packages = lzma.compress(f"Package: other\n\n{text}\n\nPackage: last\n".encode())
    index = "main/binary-arm64/Packages.xz"
    mirror.files[f"dists/{SUITE}/{index}"] = packages
    digest = hashlib.sha256(packages).hexdigest()
    mirror.files[f"dists/{SUITE}/InRelease"] += f"\n {digest} 9 {index}".encode()
    mirror.files["pool/installer.deb"] = package + b"\n" * changed
    if changed:
        with pytest.raises(ImageError, match="netboot-arm64 is not what Debian has signed"):
            fetched(mirror, tmp_path)
    else:
        assert fetched(mirror, tmp_path) == [b"text linux", b"text initrd.gz"]


def test_what_is_missing_is_named(mirror: Mirror, tmp_path: Path) -> None:
    del mirror.files[f"{FILES}/linux"]
    steps: list[str] = []
    with pytest.raises(ImageError, match=r"cannot fetch .*/Packages.xz: Not Found"):
        netboot.fetch(mirror.address, SUITE, "arm64", tmp_path, steps.append)
    assert re.search(r"cannot fetch .*/linux: Not Found", steps[-1])
    mirror.files["dists/trixie/main/binary-arm64/Packages.xz"] = lzma.compress(b"")
    with pytest.raises(ImageError, match="is there an installer of this release"):
        fetched(mirror, tmp_path)


def test_without_keys_a_server_must_have_a_certificate(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netboot, "KEYRINGS", (tmp_path / "none",))
    with pytest.raises(ImageError, match=r"cannot be checked.*by https"):
        fetched(mirror, tmp_path)


def archive_of_this_machine() -> str:
    """Where apt has Debian's packages from here."""
    command = ["apt-get", "indextargets", "--format", "$(SITE)"]
    sites = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return next(site for site in sites if site.rstrip("/").endswith("/debian"))


def test_debians_signature_is_checked(tmp_path: Path) -> None:
    """By Debian's keys, of this machine, and on Debian's own file."""
    archive = archive_of_this_machine()
    address = f"{archive}/dists/{SUITE}/InRelease"
    with urllib.request.urlopen(address, timeout=netboot.FETCH_SECONDS) as answer:
        signed: bytes = answer.read()
    release = netboot._release  # noqa: SLF001
    text, how = release(archive, signed, tmp_path)
    assert how == "checked by Debian's signature"
    assert "main/installer-arm64/current/images/SHA256SUMS" in text
    (tmp_path / "Release").unlink()
    with pytest.raises(ImageError, match=r"not signed by Debian:\n(.*\n)*.*BAD signature"):
        release(archive, signed.replace(b"Suite: stable", b"Suite: stabler"), tmp_path)


def unpacked(initrd: Path, folder: Path, tree: Tree) -> dict[str, bytes]:
    """What Linux would find in an initial RAM file system, beside what was there before."""
    folder.mkdir()
    content = gzip.decompress(initrd.read_bytes()[8:])
    cpio = [str(tree.root / "usr/bin/busybox"), "cpio", "-id"]
    subprocess.run(cpio, input=content, cwd=folder, check=True)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def options(tmp_path: Path) -> ImageOptions:
    """For Apple Silicon."""
    return ImageOptions(
        output=tmp_path / "image",
        architecture="arm64",
        use="containers",
        size=3 << 30,
        mirror="http://archive.example/debian/",
    )


def test_the_installer_is_told_all_of_it(options: ImageOptions, tmp_path: Path, tree: Tree) -> None:
    write_files(options, tmp_path / "files.tar")
    initrd = tmp_path / "initrd"
    # Not a multiple of four, where the next archive has to begin.
    initrd.write_bytes(b"old--")
    files = (tmp_path / "files.tar").read_bytes()
    netboot.add_files(initrd, installer.told(options, files))
    found = unpacked(initrd, tmp_path / "unpacked", tree)
    assert found["hesper/files.tar"] == files
    with tarfile.open(tmp_path / "unpacked/hesper/files.tar") as archive:
        assert "etc/fstab" in archive.getnames()
    preseed = found["preseed.cfg"].decode()
    assert "d-i mirror/http/hostname string archive.example\n" in preseed
    assert "d-i mirror/http/directory string /debian\n" in preseed
    assert "d-i debian-installer/country string US\n" in preseed
    assert "label{ hesper-root }" in preseed
    assert "\nd-i apt-setup/services-select multiselect security, updates, backports\n" in preseed
    inside = found["hesper/inside"].decode()
    assert " linux-image-arm64-16k " in inside
    assert " podman " in inside
    assert "EFI/BOOT/BOOTAA64.EFI" in inside
    # Linux 7.2 wants more of Mesa where pages have 16 KiB.
    assert b"\nPackage: src:mesa*\nPin: release n=trixie-backports\n" in found["hesper/preferences"]
    assert b"/dev/ttyAMA0" in found["hesper/late"]
    for script in ("early", "late", "inside"):
        subprocess.run(["sh", "-n"], input=found[f"hesper/{script}"], check=True)


def followed(*lines: str | None, trouble: str = "") -> tuple[str, list[str]]:
    """Why it has failed, and the steps that were told.

    trouble: what its machine says of itself.
    """
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for line in lines:
        said.put(line)
    steps: list[str] = []
    return installer.follow(said, steps.append, ignore, lambda: trouble), steps


BASE = "Nov 28 12:00:00 main-menu[299]: INFO: Menu item 'bootstrap-base' selected"
BROKEN = "main-menu[299]: WARNING **: Configuring 'bootstrap-base' failed with error code 1"


def test_its_steps_are_told() -> None:
    assert followed(BASE, installer.DONE, None) == (
        "",
        ["installing: Debian's base system (some minutes)"],
    )


def test_its_failures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert followed(BASE, BROKEN)[0] == BROKEN
    assert followed("[  1.0] Kernel panic - not syncing: no init")[0].endswith("no init")
    question = (
        "Download installer components",
        "-----------------------------",
        "The installer failed to download a file from the mirror.",
        "Downloading a file failed:",
        "1: Retry [*],  2: Change mirror,      3: Cancel,",
        "Prompt: '?' for help, default=1>",
    )
    assert followed(BASE, *question)[0] == (
        "it asks what nobody is there to answer: The installer failed to download a file from the"
        " mirror. Downloading a file failed:"
    )
    missing = "anna[2794]: WARNING **: package retrieval failed"
    assert followed(BASE, missing)[0] == missing
    assert followed("hesper: failed")[0] == "hesper: failed"
    assert followed(BASE, None)[0] == "its machine has ended"
    monkeypatch.setattr(installer, "SILENCE_SECONDS", 0.06)
    assert followed(BASE)[0] == "it has said nothing for 0.001 minutes"
    monkeypatch.setattr(installer, "SILENCE_SECONDS", 1800.0)
    monkeypatch.setattr(installer, "WHOLE_SECONDS", 0.36)
    assert followed(BASE)[0] == "it has not come to its end in 0.0001 hours"


def test_a_machine_that_stands_still_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "LOOK_SECONDS", 0.01)
    assert followed(BASE, trouble="its processor burns") == (
        "its processor burns",
        ["installing: Debian's base system (some minutes)"],
    )
    # Who is silent and well has its time.
    monkeypatch.setattr(installer, "SILENCE_SECONDS", 0.06)
    assert followed(BASE)[0] == "it has said nothing for 0.001 minutes"


class FakeQemu(Qemu):
    """A program that says what the installer says, and keeps what it was started with."""

    accelerator = "tcg"
    memory_backend = "memory-backend-shm"

    def __init__(self, folder: Path, script: str) -> None:
        """`script` is what it does."""
        program = folder / "qemu"
        program.write_text(f'#!/bin/sh\necho "$@" > {folder}/arguments\n{script}\n')
        program.chmod(0o755)
        super().__init__([str(program)])


def run_installer(
    options: ImageOptions,
    mirror: Mirror,
    script: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Have it build the image; returns the steps that were told."""
    qemu = FakeQemu(folder, script)
    (folder / "code").touch()
    firmware = Firmware(folder / "code", folder / "code")
    monkeypatch.setattr(Qemu, "find", lambda *_: qemu)
    monkeypatch.setattr(installer, "find_firmware", lambda *_: firmware)
    monkeypatch.setattr(mmdebstrap, "is_there", lambda: False)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    steps: list[str] = []
    made = ImageOptions(
        output=options.output, architecture="arm64", size=options.size, mirror=mirror.address
    )
    build_image(made, steps.append, ignore)
    return steps


def test_a_machine_without_mmdebstrap_has_it_installed(
    options: ImageOptions, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'echo "{BASE}"; echo "{installer.DONE}"'
    steps = run_installer(options, mirror, script, tmp_path, monkeypatch)
    assert options.output.stat().st_size == options.size
    assert steps[0].startswith("no mmdebstrap here")
    assert "installing: Debian's base system (some minutes)" in steps
    arguments = (tmp_path / "arguments").read_text()
    assert "-no-reboot" in arguments
    assert "if=pflash" in arguments
    # It has no screen, and no GPU that would have to be served.
    assert "vhost-user" not in arguments
    assert not list(tmp_path.glob("hesper-installer-*.log"))


def test_an_installer_that_fails_leaves_its_log_and_no_image(
    options: ImageOptions, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It waits for somebody then, as the installer does.
    script = f'echo "all of it"; echo "{BROKEN}"; exec sleep 600'
    with pytest.raises(ImageError, match="failed with error code 1; its log: ") as failed:
        run_installer(options, mirror, script, tmp_path, monkeypatch)
    log = Path(str(failed.value).rpartition("its log: ")[2])
    assert "all of it" in log.read_text()
    assert not options.output.exists()
    assert not list(tmp_path.glob(".image.part"))


def test_it_can_be_chosen(options: ImageOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[installer.Builder] = []

    def install(
        _: ImageOptions, machine: installer.Builder, __: Path, disk: Path, *___: object
    ) -> None:
        seen.append(machine)
        disk.touch()

    monkeypatch.setattr(installer, "install", install)
    monkeypatch.setattr(mmdebstrap, "is_there", lambda: True)
    chosen = installer.Builder(qemu="some qemu")
    build_image(options, ignore, ignore, chosen)
    assert seen == [chosen]


def test_an_archive_must_be_named(options: ImageOptions) -> None:
    with pytest.raises(ImageError, match="say --mirror, the address of one of Debian's archives"):
        build_image(replace(options, mirror=""), ignore, ignore, installer.Builder())
