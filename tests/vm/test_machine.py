"""How QEMU is found, asked and told; no guest is booted."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hesper.cli import guest
from hesper.cli._gpu import DisplayOptions
from hesper.display.input import ABSOLUTE_MAX, Button, Key, PointerButton, PointerMove
from hesper.display.scanout import Display, Size
from hesper.gpu.runner import GpuOptions
from hesper.portable import architecture
from hesper.vm import qemu
from hesper.vm.devices import escape
from hesper.vm.disks import FileKind, file_kind
from hesper.vm.firmware import Firmware, FirmwareError, find_firmware
from hesper.vm.guest_image import ImageError, ImageOptions
from hesper.vm.image_builder import build_image
from hesper.vm.input_events import to_qemu
from hesper.vm.libvirt import libvirt_xml
from hesper.vm.machine import Disk, Machine, default_cpus, default_memory, gpu_arguments
from hesper.vm.outputs import Address, OutputError, OutputOptions, Outputs, UnixPath
from hesper.vm.qemu import Qemu, QemuError
from hesper.vm.qemu_window import QemuWindow, qemu_window

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")

ANSWERS = {
    "--version": "QEMU emulator version 11.1.3 (Debian)",
    "-device help": 'name "vhost-user-test-device-pci", bus PCI',
    "-accel help": "Accelerators supported in QEMU binary:\ntcg\nkvm",
    "-audiodev help": "Available audio drivers:\nnone\npa\nalsa",
    "-object help": "  memory-backend-memfd\n  memory-backend-shm",
}

FakeQemu = Callable[..., Path]


@pytest.fixture
def fake_qemu(tmp_path: Path) -> FakeQemu:
    """Make a program that answers as QEMU does."""

    def make(changed: dict[str, str] | None = None, *, starts_with: str = "") -> Path:
        """`starts_with`: words with one of which it starts; others make it fail."""
        answers = {**ANSWERS, **(changed or {})}
        path = tmp_path / "qemu-system-x86_64"
        path.write_text(
            f"#!{sys.executable}\n"
            "import sys\n"
            f"answers = {answers!r}\n"
            "asked = ' '.join(sys.argv[1:])\n"
            "if asked in answers:\n"
            "    print(answers[asked])\n"
            f"elif not any(word in asked for word in {starts_with.split()!r}):\n"
            "    sys.exit(1)\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def test_a_good_qemu_is_taken(fake_qemu: FakeQemu) -> None:
    qemu = Qemu.find("x86_64", str(fake_qemu()))
    assert qemu.version == (11, 1)
    assert qemu.memory_backend == "memory-backend-memfd"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--version": "QEMU emulator version 7.2.11"}, "version 7.2, which is too old"),
        ({"--version": "coreutils 9"}, "does not say which QEMU it is: coreutils 9"),
        ({"-device help": 'name "virtio-gpu-pci"'}, "was built without"),
    ],
)
def test_other_qemus_are_not(fake_qemu: FakeQemu, changed: dict[str, str], message: str) -> None:
    with pytest.raises(QemuError, match=message):
        Qemu.find("x86_64", str(fake_qemu(changed)))


def test_one_that_lacks_a_library_is_told_by_it(tmp_path: Path) -> None:
    """As after Homebrew has replaced the library."""
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho Library not loaded: glib >&2\necho Reason: >&2\nexit 6")
    program.chmod(0o755)
    with pytest.raises(QemuError, match=r"which QEMU it is: Library not loaded: glib$"):
        Qemu.find("x86_64", str(program))


def test_no_qemu_at_all() -> None:
    with pytest.raises(QemuError, match="there is no qemu-system-nothing"):
        Qemu.find("nothing")


@pytest.mark.parametrize(
    ("works", "wanted"), [("kvm", "kvm"), ("", "tcg"), ("hvf", "tcg")], ids=["kvm", "none", "hvf"]
)
def test_accelerators_are_tried(fake_qemu: FakeQemu, works: str, wanted: str) -> None:
    """Hvf would start, but this QEMU does not know it."""
    assert Qemu.find("x86_64", str(fake_qemu(starts_with=works))).accelerator == wanted


@pytest.mark.parametrize(
    ("works", "device", "wanted"),
    [("pa alsa", "pcmC0D0p", "pa"), ("alsa", "pcmC0D0p", "alsa"), ("alsa", "timer", "none"),
     ("pa alsa", "timer", "pa"), ("", "pcmC0D0p", "none")],
)  # fmt: skip
def test_audio_is_tried(
    fake_qemu: FakeQemu,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    works: str,
    device: str,
    wanted: str,
) -> None:
    (tmp_path / "snd").mkdir()
    (tmp_path / "snd" / device).touch()
    monkeypatch.setattr(qemu, "SOUND_DEVICES", tmp_path / "snd")
    assert Qemu.find("x86_64", str(fake_qemu(starts_with=works))).audio == wanted


def machine(**options: object) -> Machine:
    """A machine with as little as can be."""
    least = {
        "architecture": "x86_64",
        "gpu_socket": Path("/run/gpu"),
        "monitor_socket": Path("/run/qmp"),
        "memory": 2 << 30,
        "cpus": 2,
        "accelerator": "tcg",
        "audio": "none",
        "network": False,
    }
    return Machine(**{**least, **options})  # type: ignore[arg-type]


def arguments(fake_qemu: FakeQemu, **options: object) -> str:
    """What QEMU is told, in one line."""
    return shlex.join(machine(**options).arguments(Qemu.find("x86_64", str(fake_qemu()))))


def test_the_machine_has_shared_memory_and_the_device(fake_qemu: FakeQemu) -> None:
    line = arguments(fake_qemu)
    assert "-object memory-backend-memfd,id=ram,size=2147483648,share=on" in line
    assert "-machine q35,memory-backend=ram" in line
    assert "-cpu max" in line
    assert "-chardev socket,id=gpu,path=/run/gpu" in line
    assert (
        "-device vhost-user-test-device-pci,bus=gpu-port,chardev=gpu,virtio-id=16,num_vqs=2"
        ",vq_size=256,config_size=20" in line
    )
    assert "-display none" in line
    assert "-device virtio-vga" not in line


def test_the_host_decides_on_the_processor(fake_qemu: FakeQemu) -> None:
    assert "-accel kvm -cpu host" in arguments(fake_qemu, accelerator="kvm")
    assert "-machine virt," in arguments(fake_qemu, architecture="aarch64")


def test_two_gpus(fake_qemu: FakeQemu) -> None:
    line = arguments(fake_qemu, dual_gpu=True)
    assert "-device virtio-vga" in line
    assert "-display none" not in line


GPU_WITH_MEMORY = {
    "-device vhost-user-gpu-pci,help": "vhost-user-gpu-pci options:\n  blob=<bool>  - on/off\n"
    "  chardev=<string>\n  hostmem=<size>  -  (default: 0)\n",
    "-display help": "Available display backend types:\nnone\ngtk\nspice-app\n\nSome have options",
}
"""What a QEMU answers that can show the screens of a device that shares memory."""


def window(fake_qemu: FakeQemu, kind: str = "gtk", **changed: str) -> QemuWindow:
    """QEMU's window."""
    qemu = Qemu.find("x86_64", str(fake_qemu({**GPU_WITH_MEMORY, **changed})))
    return qemu_window(qemu, kind, scanouts=2, size=Size(1920, 1080), hostmem=4 << 30)


def test_qemu_shows_the_screens_where_it_can(fake_qemu: FakeQemu) -> None:
    line = arguments(fake_qemu, window=window(fake_qemu))
    assert "vhost-user-test-device-pci" not in line
    assert (
        "-device vhost-user-gpu-pci,bus=gpu-port,chardev=gpu,max_outputs=2,xres=1920,yres=1080"
        ",queue_reset=off,hostmem=4294967296,blob=on" in line
    )
    assert "-display gtk,gl=on" in line
    assert "-display none" not in line


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("gtk,full-screen=on", "gtk,full-screen=on,gl=on"),
        ("gtk,gl=es", "gtk,gl=es"),
        ("none", "none"),
    ],
)
def test_qemus_window_draws_with_opengl(fake_qemu: FakeQemu, kind: str, told: str) -> None:
    assert window(fake_qemu, kind).arguments == ["-display", told]


def test_what_is_switched_on_by_itself_is_not_switched_on(fake_qemu: FakeQemu) -> None:
    plain = {"-device vhost-user-gpu-pci,help": "  hostmem=<size>  -  (default: 0)"}
    assert "blob" not in window(fake_qemu, **plain).properties


TODAYS = "vhost-user-gpu-pci options:\n  chardev=<string>\n  max_outputs=<uint32>\n"


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("gtk", {"-device vhost-user-gpu-pci,help": TODAYS}, "(property hostmem), which"),
        ("gtk", {"-device vhost-user-gpu-pci,help": ""}, "(property hostmem), which"),
        ("sdl", {}, "has no display sdl; it has none, gtk, spice-app"),
    ],
)
def test_what_qemus_window_needs_is_said(
    fake_qemu: FakeQemu, kind: str, changed: dict[str, str], message: str
) -> None:
    with pytest.raises(QemuError, match=re.escape(message)):
        window(fake_qemu, kind, **changed)


def test_a_pc_without_uefi_shows_its_beginning_on_a_vga_card(fake_qemu: FakeQemu) -> None:
    """On the ISA bus, where Linux finds no screen; and without SMM, with which SeaBIOS hangs."""
    assert machine().wants_vga
    line = arguments(fake_qemu, vga_socket=Path("/run/a,b"))
    assert "-machine q35,smm=off,memory-backend=ram" in line
    assert "-display none -device isa-cirrus-vga -vnc unix:/run/a,,b" in line
    assert "vga" not in arguments(fake_qemu)
    firmware = Firmware(Path("/code"), Path("/template"))
    for other in (
        {"firmware": firmware, "firmware_variables": Path("/vars")},
        {"kernel": Path("/k")},
        {"dual_gpu": True},
        {"architecture": "aarch64"},
    ):
        assert not machine(**other).wants_vga


def test_disks_boot_in_order_and_isos_first(fake_qemu: FakeQemu) -> None:
    line = arguments(
        fake_qemu,
        disks=[
            Disk(Path("/a,b.qcow2"), FileKind.QCOW2),
            Disk(Path("/debian.iso"), FileKind.ISO),
        ],
    )
    assert "media=cdrom,readonly=on,format=raw,file=/debian.iso" in line
    assert "scsi-cd,drive=disk0,bootindex=0" in line
    assert "discard=unmap,format=qcow2,file=/a,,b.qcow2" in line
    assert "virtio-blk-pci,drive=disk1,bootindex=1" in line


def test_kernel_network_audio_firmware(fake_qemu: FakeQemu) -> None:
    line = arguments(
        fake_qemu,
        kernel=Path("/k"),
        initrd=Path("/i"),
        append="quiet ro",
        network=True,
        ports=[(2222, 22)],
        audio="pa",
        firmware=Firmware(Path("/code"), Path("/template")),
        firmware_variables=Path("/vars"),
        disks=[Disk(Path("/d"), FileKind.RAW)],
        extra=["-name", "x"],
    )
    assert "-kernel /k -initrd /i -append 'quiet ro'" in line
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in line
    assert "-audiodev pa,id=audio -device intel-hda -device hda-duplex,audiodev=audio" in line
    assert "if=pflash,format=raw,unit=0,readonly=on,file=/code" in line
    assert "if=pflash,format=raw,unit=1,file=/vars" in line
    assert "bootindex" not in line
    assert line.endswith("-name x")


def test_defaults_fit_the_host() -> None:
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 256 << 20 <= default_memory() <= max(host // 4, 256 << 20)
    assert default_memory() % (256 << 20) == 0
    assert 1 <= default_cpus() <= 4


@pytest.mark.parametrize(
    ("architecture", "accelerator", "kind", "cpu"),
    [("x86_64", "kvm", "kvm", "host-passthrough"), ("aarch64", "tcg", "qemu", "maximum")],
)
def test_libvirt_says_the_same(architecture: str, accelerator: str, kind: str, cpu: str) -> None:
    gpu, monitor = Path('/run/a&"b'), Path("/run/c,d")
    text = libvirt_xml(
        gpu,
        monitor,
        architecture=architecture,
        memory=3 << 30,
        accelerator=accelerator,
        agent=Path("/run/e,f"),
    )
    root = ElementTree.fromstring(text)
    space = "{http://libvirt.org/schemas/domain/qemu/1.0}"
    told = [each.get("value") for each in root.iter(f"{space}arg")]
    assert told == [*gpu_arguments(gpu), "-qmp", "unix:/run/c,,d"]
    assert escape(Path("/a,b")) == "/a,,b"

    def attribute(path: str, name: str) -> str | None:
        found = root.find(path)
        assert found is not None, path
        return found.get(name)

    assert attribute("memoryBacking/access", "mode") == "shared"
    assert (root.get("type"), attribute("cpu", "mode")) == (kind, cpu)
    assert attribute("os/type", "arch") == architecture
    assert root.findtext("memory") == "3072"
    assert attribute("devices/channel/source", "path") == "/run/e,f"
    assert attribute("devices/channel/target", "name") == "com.redhat.spice.0"
    # Keys and pointer have where to go, and no screen is QEMU's.
    inputs = {(each.get("type"), each.get("bus")) for each in root.iter("input")}
    assert {("tablet", "usb"), ("keyboard", "virtio")} <= inputs
    assert attribute("devices/video/model", "type") == "none"
    assert root.find("devices/graphics") is None
    assert (root.find("pm") is not None) == (architecture == "x86_64")


def test_libvirt_shows_the_screens_by_spice(fake_qemu: FakeQemu) -> None:
    shown = window(fake_qemu)
    text = libvirt_xml(
        Path("/gpu"), Path("/m"), architecture="x86_64", memory=1 << 30, window=shown
    )
    root = ElementTree.fromstring(text)
    graphics = root.find("devices/graphics")
    assert graphics is not None
    assert graphics.get("type") == "spice"
    assert any(shown.properties in each.get("value", "") for each in root.iter())


def image(path: Path, *pieces: tuple[int, bytes]) -> Path:
    """A file with bytes at some places."""
    with path.open("wb") as file:
        file.truncate(1 << 16)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([], FileKind.RAW),
        ([(0, b"QFI\xfb")], FileKind.QCOW2),
        ([(0, b"KDMV")], FileKind.VMDK),
        ([(64, b"\x7f\x10\xda\xbe")], FileKind.VDI),
        ([(0, b"vhdxfile")], FileKind.VHDX),
        ([(0x8001, b"CD001"), (510, b"\x55\xaa")], FileKind.ISO),
        ([(0x202, b"HdrS")], FileKind.X86_KERNEL),
        ([(0x38, b"ARM\x64")], FileKind.ARM_KERNEL),
    ],
)
def test_files_are_told_apart(
    tmp_path: Path, pieces: list[tuple[int, bytes]], kind: FileKind
) -> None:
    assert file_kind(image(tmp_path / "file", *pieces)) is kind


def test_short_files_are_raw(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert file_kind(tmp_path / "empty") is FileKind.RAW


def descriptor(folder: Path, name: str, *features: str) -> None:
    """Write a firmware descriptor, and the files it names."""
    for part in ("code", "vars"):
        (folder / f"{name}-{part}").write_bytes(part.encode())
    (folder / f"{name}.json").write_text(
        json.dumps(
            {
                "interface-types": ["uefi"],
                "mapping": {
                    "device": "flash",
                    "executable": {"filename": str(folder / f"{name}-code"), "format": "raw"},
                    "nvram-template": {"filename": str(folder / f"{name}-vars")},
                },
                "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
                "features": list(features),
            }
        )
    )


def test_firmware_is_found_beside_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "share/qemu/firmware"
    folder.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/qemu"
    program.touch(0o755)
    monkeypatch.setattr("hesper.vm.firmware.Path", _rooted(tmp_path))
    with pytest.raises(FirmwareError, match="no UEFI firmware for x86_64"):
        find_firmware("x86_64", str(program))
    (folder / "10-rubbish.json").write_text("{}")
    (folder / "11-rubbish.json").write_text("no JSON")
    descriptor(folder, "20-secure", "secure-boot", "requires-smm")
    descriptor(folder, "30-plain", "acpi-s3", "amd-sev")
    found = find_firmware("x86_64", str(program))
    assert found.code == folder / "30-plain-code"
    found.copy_variables(tmp_path / "mine")
    (tmp_path / "mine").write_bytes(b"changed")
    found.copy_variables(tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == b"changed"
    with pytest.raises(FirmwareError, match="aarch64"):
        find_firmware("aarch64", str(program))


def _rooted(root: Path) -> Callable[..., Path]:
    """A `Path` for which the system's own folders are empty ones under `root`."""

    def make(*parts: str) -> Path:
        path = Path(*parts)
        system = path.is_absolute() and path.parts[1] in {"usr", "etc"}
        return root / "system" / path.relative_to("/") if system else path

    return make


def test_viewers_do_what_qemu_understands() -> None:
    display = Display(2, Size(1000, 500))
    events = to_qemu(
        display,
        1,
        [
            Key(30, True),
            PointerButton(Button.WHEEL_UP, False),
            PointerMove(ABSOLUTE_MAX, ABSOLUTE_MAX),
        ],
    )
    assert events == [
        {"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "a"}}},
        {"type": "btn", "data": {"down": False, "button": "wheel-up"}},
        {"type": "abs", "data": {"axis": "x", "value": ABSOLUTE_MAX}},
        {"type": "abs", "data": {"axis": "y", "value": ABSOLUTE_MAX}},
    ]
    left = to_qemu(display, 0, [PointerMove(ABSOLUTE_MAX, 0)])
    assert left[0]["data"]["value"] == ABSOLUTE_MAX // 2


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.0.0.0:5905", Address("0.0.0.0", 5905)),
        ("5905", Address("default", 5905)),
        (":5911", Address("default", 5911)),
        ("host", Address("host", 1)),
        ("[::1]:7", Address("::1", 7)),
    ],
)
def test_addresses(text: str, wanted: Address) -> None:
    assert Address.parse(text, Address("default", 1)) == wanted


@pytest.mark.parametrize("text", ["", ":", ":x", "host:port", "host:70000", "host:"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Address.parse(text, Address("default", 1))


def no_figures() -> list[object]:
    """No contexts."""
    return []


def test_a_port_that_is_taken_is_named() -> None:
    options = OutputOptions(vnc=Address("127.0.0.1", 0), web=None)
    display = Display()
    with Outputs(display, options, no_figures) as first:  # type: ignore[arg-type]
        port = int(first.places[0].rpartition(":")[2])
        taken = OutputOptions(vnc=Address("127.0.0.1", port), web=None)
        with (
            pytest.raises(OutputError, match=f"VNC cannot listen on 127.0.0.1:{port}.*--vnc"),
            Outputs(display, taken, no_figures),  # type: ignore[arg-type]
        ):
            pass
        taken = OutputOptions(vnc=None, web=Address("127.0.0.1", port))
        with (
            pytest.raises(OutputError, match=r"web page cannot listen.*--web"),
            Outputs(display, taken, no_figures),  # type: ignore[arg-type]
        ):
            pass


def places(options: OutputOptions) -> list[str]:
    """What people are told when a display is shown so."""
    with Outputs(Display(), options, no_figures) as outputs:  # type: ignore[arg-type]
        return outputs.places


def test_the_way_to_the_screens_is_printed_with_what_it_takes(tmp_path: Path) -> None:
    anywhere = Address("127.0.0.1", 0)
    vnc, page = places(OutputOptions(vnc=anywhere, web=anywhere))
    told = re.fullmatch(
        r"screen 1: VNC on 127\.0\.0\.1:(\d+), password ([a-z2-9]{8}):"
        r" VNC_PASSWORD=\2 vncviewer 127\.0\.0\.1::\1",
        vnc,
    )
    assert told, vnc
    assert re.fullmatch(r"web page: http://127\.0\.0\.1:\d+/#token=[\w-]{24}", page)
    # Others make up others.
    assert told[2] not in places(OutputOptions(vnc=anywhere, web=None))[0]
    given = places(OutputOptions(vnc=anywhere, vnc_password="pa55word", web=None))
    assert "pa55word" not in given[0]
    opened = places(OutputOptions(vnc=anywhere, vnc_open=True, web=None))
    assert "assword" not in opened[0].lower()
    vnc, page = places(OutputOptions(vnc=UnixPath(tmp_path / "v"), web=UnixPath(tmp_path / "w")))
    assert vnc == f"screen 1: VNC on unix:{tmp_path}/v: vncviewer {tmp_path}/v"
    assert page.endswith(f" through unix:{tmp_path}/w")


@pytest.mark.parametrize("shared", [True, False])
def test_viewers_keep_their_clipboard_where_that_is_wanted(shared: bool) -> None:
    options = DisplayOptions(vnc="off", web="off", clipboard=shared).output_options()
    with Outputs(Display(1), options, list) as outputs:
        assert outputs.clipboard is not None
        assert outputs.clipboard.is_on == shared


def test_what_others_can_reach_has_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    everywhere = Address("0.0.0.0", 0)
    vnc, page = places(OutputOptions(vnc=everywhere, web=everywhere))
    assert " vncviewer -SecurityTypes=X509Vnc " in vnc
    assert page.startswith("web page: https://")
    assert (tmp_path / "hesper" / "screens.pem").exists()
    for options, complaint in (
        (OutputOptions(vnc=everywhere, vnc_open=True), "without a password"),
        (OutputOptions(vnc=everywhere, certificate=(tmp_path / "none", None)), "No such file"),
        (OutputOptions(vnc=None, web=Address("no.host.invalid", 1)), "cannot be resolved"),
        (OutputOptions(vnc=Address("127.0.0.1", 0), vnc_password="short"), "6 to 8"),
        (OutputOptions(vnc=UnixPath(tmp_path), web=None), "no socket"),
    ):
        with pytest.raises(OutputError, match=complaint):
            places(options)
    (tmp_path / "hesper" / "screens.pem").chmod(0o644)
    with pytest.raises(OutputError, match="not this user's alone"):
        places(OutputOptions(vnc=everywhere, web=None))


@pytest.mark.parametrize("window", [0, 3 << 30, 1 << 41, 1 << 10])
def test_windows_that_cannot_be(window: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        GpuOptions(window=window)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "m68k"}, "architecture m68k"),
        ({"desktop": "cde"}, "desktop cde"),
        ({"size": 1 << 30}, "3G at least"),
        ({"size": (8 << 30) + 1}, "whole MiB"),
        ({"user": "Root; rm"}, "small letters"),
        ({"ssh_key": "one\ntwo"}, "one line"),
    ],
)
def test_images_that_cannot_be(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        ImageOptions(output=tmp_path / "image", **options)  # type: ignore[arg-type]


def test_an_image_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image").touch()
    options = ImageOptions(output=tmp_path / "image")
    monkeypatch.setattr("shutil.which", lambda _, **__: "/bin/true")
    with pytest.raises(ImageError, match="is there already"):
        build_image(options, lambda _: None, lambda _: None)


def test_what_an_image_is_made_with_is_looked_for_where_root_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbin = "/usr/sbin" if Path("/usr/sbin/mke2fs").exists() else "/sbin"
    assert (Path(sbin) / "mke2fs").exists()
    (tmp_path / "mmdebstrap").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match=r"missing: .*mtools, tar") as refused:
        build_image(ImageOptions(output=tmp_path / "image"), lambda _: None, lambda _: None)
    assert "e2fsprogs" not in str(refused.value)
    assert "fdisk" not in str(refused.value)
    assert "arch-test" not in str(refused.value)
    other = "amd64" if architecture() == "aarch64" else "arm64"
    with pytest.raises(ImageError, match=r"apt install arch-test "):
        build_image(
            ImageOptions(output=tmp_path / "image", architecture=other),
            lambda _: None,
            lambda _: None,
        )


def test_an_image_is_built_with_no_link_followed_and_says_which_package_it_is_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = 'for word; do [ "$word" != --verbose ] || echo "Setting up this"; done'
    for name in ("mmdebstrap", "mke2fs", "sfdisk", "mformat", "mmd", "mcopy", "tar", "fakeroot"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat > /dev/null\n{says if name == 'mmdebstrap' else ''}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    said: list[str] = []
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".image.part").symlink_to(precious)
    build_image(ImageOptions(output=tmp_path / "image"), lambda _: None, said.append)
    assert said == ["Setting up this"]
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".image2.guessed").symlink_to(precious)
    with pytest.raises(FileExistsError):
        build_image(ImageOptions(output=tmp_path / "image2"), lambda _: None, said.append)
    assert precious.read_text() == "mine"


def test_building_an_image_is_told_of_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(
        options: ImageOptions,
        step: Callable[[str], None],
        detail: Callable[[str], None],
        machine: object,
    ) -> None:
        assert machine is None
        step("installing")
        detail("unpacking [a]")
        options.output.touch()

    monkeypatch.setattr(guest, "build_image", build)
    monkeypatch.setattr(guest, "DETAIL_SECONDS", 0.0)
    guest.build(tmp_path / "image", desktop="sway")
    said = capsys.readouterr()
    assert "s  installing\n" in said.err
    assert "s  unpacking [a]\n" in said.err
    assert "sway starts when guest has logged in" in said.out


def hesper(*arguments: str | Path, status: int = 0) -> str:
    """Run a command and return what it prints, or complains of."""
    done = subprocess.run(
        [*HESPER, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_commands_print_what_they_would_do(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    socket = tmp_path / "gpu"
    printed = hesper("gpu", "--socket", socket, "--print-qemu")
    assert f"path={socket}" in printed
    assert f"-qmp unix:{socket}.monitor" in printed
    assert "-device usb-tablet" in printed
    assert "-vga none" in printed
    assert f"socket,id=agent,path={socket}.agent" in printed
    assert ".agent" not in hesper("gpu", "--socket", socket, "--print-qemu", "--no-clipboard")
    assert f"-vnc unix:{socket}.sound,audiodev=audio" in printed
    assert "hda-duplex" in printed
    for quiet in (("--no-sound",), ("--web", "off"), ("--scanouts", "0")):
        told = hesper("gpu", "--socket", socket, "--print-qemu", *quiet)
        assert "hda-duplex" not in told
        assert ".sound" not in told
    heard = hesper("gpu", "--socket", socket, "--print-qemu", "--sound-socket", tmp_path / "s")
    assert f"-vnc unix:{tmp_path}/s,audiodev=audio" in heard
    only_renders = hesper("gpu", "--socket", socket, "--print-qemu", "--scanouts", "0")
    assert "-vga none" not in only_renders
    assert ".agent" not in only_renders
    elsewhere = ("--monitor", tmp_path / "m", "--agent", tmp_path / "a")
    moved = hesper("gpu", "--socket", socket, *elsewhere, "--print-libvirt")
    assert f'path="{tmp_path}/a"' in moved
    assert ElementTree.fromstring(moved).tag == "domain"
    assert f"unix:{tmp_path}/m" in moved
    disk = image(tmp_path / "disk.img")
    options = ("--dry-run", "--qemu", fake_qemu(), "--accel", "tcg", "--audio", "none")
    line = hesper("vm", disk, *options, "--memory", "3G", "--port", "2222:22", "--", "-name", "x")
    assert line.rstrip().endswith("-name x")
    assert "size=3221225472" in line
    assert f"file={disk}" in line
    assert "virtserialport,chardev=agent,name=com.redhat.spice.0" in line
    # This host has no sound of its own: a page is what there is to hear the guest.
    fake_qemu(GPU_WITH_MEMORY)
    shown = hesper("vm", disk, *options, "--qemu-window", "spice-app")
    assert "-display spice-app,gl=on" in shown
    assert "max_outputs=1,xres=1280,yres=800,queue_reset=off,hostmem=8589934592" in shown
    fake_qemu(GPU_WITH_MEMORY, starts_with="-vnc")
    # A VNC server of QEMU's, by which Hesper hears the guest, goes with no window of QEMU's.
    assert "-vnc" not in hesper("vm", disk, *options[:-2], "--qemu-window", "gtk")
    fake_qemu()
    any_audio = options[:-2]
    assert "-vnc" not in hesper("vm", disk, *any_audio), "it was built without"
    fake_qemu(starts_with="-vnc")
    heard = hesper("vm", disk, *any_audio)
    assert "-audiodev none,id=audio -device intel-hda" in heard
    assert re.search("-vnc unix:[^ ]*/sound,audiodev=audio ", heard)
    for quiet in (("--audio", "none"), ("--no-sound",), ("--web", "off")):
        told = hesper("vm", disk, *any_audio, *quiet)
        assert "hda-duplex" not in told
        assert "-vnc" not in told
    for without in (("--no-clipboard",), ("--dual-gpu",)):
        assert "chardev=agent" not in hesper("vm", disk, *options, *without)
    kernel = image(tmp_path / "vmlinuz", (0x202, b"HdrS"))
    assert f"-kernel {kernel}" in hesper("vm", "--kernel", kernel, *options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to boot"),
        (("/nowhere/disk.img",), "No such file"),
        (("--kernel", "/nowhere/vmlinuz"), "No such file"),
        (("KERNEL",), "say --kernel"),
        (("--kernel", "KERNEL", "--arch", "aarch64"), "is a kernel for x86_64"),
        (("PACKED",), "is compressed: unpack it first (xz -d)"),
        (("/",), "/: Is a directory"),
        (("DISK", "--port", "22"), "--port 22: must be HOST:GUEST"),
        (("DISK", "--memory", "much"), "is no size"),
        (("DISK", "--memory", "1"), "say it with a unit, as in 1M"),
        (("DISK", "--memory", "1M"), "too little for a guest"),
        (("DISK", "--memory", "512T"), "this host has"),
        (("DISK", "--qemu", "/nowhere/qemu"), "there is no /nowhere/qemu"),
        (("DISK", "--qemu-window", "gtk"), "--qemu-window gtk: it needs a QEMU whose vhost-user"),
        (("DISK", "--qemu-window", "gtk", "--scanouts", "0"), "there is no screen to show"),
        (("DISK", "--qemu-window", "gtk", "--dual-gpu"), "there is no screen to show"),
    ],
)
def test_what_cannot_be_is_said_clearly(
    fake_qemu: FakeQemu, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    files = {
        "KERNEL": str(image(tmp_path / "vmlinuz", (0x202, b"HdrS"))),
        "DISK": str(image(tmp_path / "disk.img")),
        "PACKED": str(image(tmp_path / "disk.img.xz", (0, b"\xfd7zXZ\0"))),
    }
    words = tuple(files.get(word, word) for word in words)
    if "--qemu" not in words:
        words = (*words, "--qemu", str(fake_qemu()))
    complaint = hesper("vm", "--dry-run", *words, status=1)
    assert message in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--scanouts", "17"), 1, "--scanouts 17: must be a whole number, 0 to 16"),
        (("--hostmem", "3G"), 1, "power of two"),
        (("--hostmem", "3G", "--print-qemu"), 1, "power of two"),
        (("--socket-mode", "0999"), 1, "--socket-mode 0999: must be octal permissions"),
        (("--socket-group", "no such group"), 1, "must be a group of this system"),
        (("--hostmem", "2048"), 2, "2048M"),
        (("--screenshot", "/nowhere/picture.png"), 1, "there is no folder /nowhere"),
        (("--resolution", "wide"), 2, "is no resolution"),
        (("--vnc", "a:b"), 1, "is no address"),
        (("--web", "unix:"), 1, "is no socket"),
        (("--vnc-no-password", "--vnc-password-file", "x"), 1, "choose one of them"),
        (("--tls-key", "x"), 1, "without --tls-certificate"),
        (("--vnc-password-file", "/nowhere/file"), 1, "/nowhere/file"),
    ],
)
def test_gpus_that_cannot_be(
    tmp_path: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    assert message in hesper("gpu", "--socket", tmp_path / "gpu", *words, status=status)
