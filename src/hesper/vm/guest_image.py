"""A bootable Debian for guests: a disk image made without root and without mounting anything.

mmdebstrap makes the file system as an archive; `mke2fs -d` turns it into ext4 inside a GPT image
whose other partition holds GRUB for UEFI, which finds kernels by the links Debian keeps.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hesper.errors import HesperError
from hesper.portable import architecture

SECTOR = 512
MEBI = 1 << 20
EFI_START = MEBI
EFI_SIZE = 48 * MEBI
ROOT_START = EFI_START + EFI_SIZE
END_RESERVE = MEBI
"""For the second partition table."""
LEAST_SIZE = 3 << 30
LABEL = "hesper-root"

_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "sfdisk": "fdisk",
    "mformat": "mtools",
    "mcopy": "mtools",
    "tar": "tar",
}

_BASE = (
    "systemd-sysv",
    "udev",
    "dbus",
    "libpam-systemd",
    "systemd-resolved",
    "ca-certificates",
    "sudo",
    "openssh-server",
    "iproute2",
    "less",
    "mesa-vulkan-drivers",
    "vulkan-tools",
)

_SOUND = ("pipewire-audio", "alsa-utils")

DESKTOPS = {
    "none": (),
    "weston": ("weston", "seatd", "foot", *_SOUND),
    "sway": ("sway", "seatd", "foot", *_SOUND),
    "xorg": (
        "xserver-xorg-core",
        "xserver-xorg-input-libinput",
        "xinit",
        "openbox",
        "xterm",
        "x11-xserver-utils",
        "mesa-utils",
        "spice-vdagent",
        *_SOUND,
    ),
    "xfce": (
        "xserver-xorg",
        "xfce4",
        "xfce4-terminal",
        "lightdm",
        "mesa-utils",
        # Clipboard, and the size that a viewer wants.  It is X's alone.
        "spice-vdagent",
        *_SOUND,
    ),
}
"""Packages of every desktop."""

SESSIONS = {
    "weston": "weston",
    # Its other renderer asks for a GPU that is none of software.
    "sway": "WLR_RENDERER=vulkan sway",
    "xorg": "startx /usr/bin/openbox-session",
}
"""What starts those that no display manager starts."""

_EFI = {
    "amd64": ("x86_64-efi", "BOOTX64.EFI", "grub-efi-amd64-bin"),
    "arm64": ("arm64-efi", "BOOTAA64.EFI", "grub-efi-arm64-bin"),
}
"""By Debian's architecture: GRUB's platform, the firmware's default program, the package."""


PAGES = {"amd64": ("4k",), "arm64": ("16k", "4k")}
"""By Debian's architecture: sizes of the kernel's pages, the default first.  On Apple Silicon,
whose pages have 16 KiB, a guest with pages as large has Venus whatever its Mesa."""
_FLAVOURS = {("arm64", "16k"): "arm64-16k"}
"""Of Debian's kernels, where it is not the architecture."""
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_QEMU_USER = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}

_SERIAL = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
"""By Debian's architecture: the serial port of the machine that `hesper vm` makes."""


class ImageError(HesperError):
    """The image cannot be made; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What the image is like.  Raises `ImageError` for what cannot be."""

    output: Path
    suite: str = "trixie"
    architecture: str = "amd64"
    """Debian's name."""
    pages: str = ""
    """Size of the kernel's pages, `4k` or `16k`; that of `PAGES` if empty."""
    size: int = 8 << 30
    """Bytes; the file takes what is used."""
    desktop: str = "none"
    packages: Sequence[str] = ()
    user: str = "guest"
    ssh_key: str = ""
    """A public key that may log in as the user."""
    mirror: str = ""
    """Where packages come from; the distribution's own servers if empty."""

    def __post_init__(self) -> None:
        """Check them."""
        if self.architecture not in _EFI:
            raise ImageError(f"architecture {self.architecture}: must be one of {', '.join(_EFI)}")
        if self.pages and self.pages not in PAGES[self.architecture]:
            known = " or ".join(PAGES[self.architecture])
            raise ImageError(
                f"pages of {self.pages}: Debian's kernel for {self.architecture} has {known}"
            )
        if self.desktop not in DESKTOPS:
            raise ImageError(f"desktop {self.desktop}: must be one of {', '.join(DESKTOPS)}")
        if self.size < LEAST_SIZE or self.size % MEBI:
            raise ImageError(f"size {self.size}: must be whole MiB, {LEAST_SIZE >> 30}G at least")
        if not self.user.isidentifier() or not self.user.islower():
            raise ImageError(f"user {self.user!r}: use small letters")
        if len(self.ssh_key.splitlines()) > 1:
            raise ImageError("the SSH key must be one line")

    @property
    def kernel(self) -> str:
        """The kernel's package."""
        pages = self.pages or PAGES[self.architecture][0]
        return f"linux-image-{_FLAVOURS.get((self.architecture, pages), self.architecture)}"

    @property
    def is_wayland(self) -> bool:
        """Whether the desktop's windows are Wayland's alone."""
        return self.desktop in {"weston", "sway"}

    @property
    def backports(self) -> str:
        """The suite's backports, whose kernel and Mesa are newer; empty for sid and the like."""
        return "" if self.suite in {"sid", "unstable", "testing"} else f"{self.suite}-backports"


Step = Callable[[str], None]
"""Told what is being done."""


def build_image(options: ImageOptions, step: Step, detail: Step) -> None:
    """Make the image; `step` hears of every step, `detail` of what a step says.

    The file appears whole or not at all.  Raises `ImageError`.
    """
    _check_tools()
    _check_architecture(options.architecture)
    if options.output.exists():
        raise ImageError(f"{options.output} is there already: remove it, or choose another name")
    part = options.output.with_name(f".{options.output.name}.part")
    with tempfile.TemporaryDirectory(prefix="hesper-image-") as folder:
        work = Path(folder)
        # Packages are unpacked by another user, who has to get through.
        work.chmod(0o755)
        try:
            step("installing Debian (some minutes)")
            _make_root(options, work, detail)
            step("making the file system")
            _make_disk(options, work, part, detail)
            part.replace(options.output)
        finally:
            part.unlink(missing_ok=True)


def _path() -> str:
    """Where programs are looked for: Debian does not lead users to mke2fs and sfdisk."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _check_tools() -> None:
    needed = dict(_TOOLS) if os.geteuid() == 0 else {**_TOOLS, "fakeroot": "fakeroot"}
    path = _path()
    missing = sorted({needed[tool] for tool in needed if shutil.which(tool, path=path) is None})
    if missing:
        raise ImageError(
            f"missing: {', '.join(missing)}; install them (Debian: apt install"
            f" {' '.join(missing)}).  Elsewhere than on Linux use a ready-made image, see"
            " docs/vm-guests.md"
        )


def _check_architecture(wanted: str) -> None:
    """Raise `ImageError` unless programs of that architecture run here, if only emulated."""
    if {"x86_64": "amd64", "aarch64": "arm64"}.get(architecture()) == wanted:
        return
    handler = _BINFMT / _QEMU_USER[wanted]
    try:
        works = handler.read_text(encoding="utf-8").startswith("enabled")
    except OSError:
        works = False
    if not works:
        raise ImageError(
            f"programs for {wanted} do not run here: install qemu-user-static (from Debian 13 on:"
            " qemu-user-binfmt), and make sure that binfmt_misc is mounted"
        )


def _run(command: Sequence[str | Path], detail: Step, *, text: str = "") -> None:
    """Run a program, passing on what it says.  Raises `ImageError` when it fails."""
    try:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, "PATH": _path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ImageError(f"cannot run {command[0]}: {error.strerror}") from None
    said: list[str] = []
    if process.stdin is not None and process.stdout is not None:
        process.stdin.write(text)
        process.stdin.close()
        for line in process.stdout:
            said.append(line.rstrip())
            detail(said[-1])
    if process.wait() != 0:
        last = "\n".join(said[-15:])
        raise ImageError(f"{command[0]} has failed:\n{last}")


def _make_root(options: ImageOptions, work: Path, detail: Step) -> None:
    """Make `root.tar` and the boot loader in `work`."""
    platform, program, package = _EFI[options.architecture]
    write_files(options, work / "files.tar")
    desktop = DESKTOPS[options.desktop]
    packages = [*_BASE, *desktop, *options.packages, options.kernel, package, "grub-common"]
    make_loader = (
        f"grub-mkstandalone --format={platform} --output=/root/{program}"
        " boot/grub/grub.cfg=/root/grub.cfg"
    )
    command: list[str | Path] = [
        "mmdebstrap",
        # What apt and dpkg do: else nothing is said for minutes, unless there is a terminal.
        "--verbose",
        "--variant=minbase",
        f"--architectures={options.architecture}",
        f"--include={','.join(packages)}",
        f"--customize-hook=tar-in {work}/files.tar /",
        '--customize-hook=chroot "$1" sh /root/setup',
        f'--customize-hook=chroot "$1" {make_loader}',
        f"--customize-hook=copy-out /root/{program} {work}",
        f'--customize-hook=cd "$1"/root && rm setup grub.cfg {program}',
    ]
    if options.backports:
        command.append(f"--setup-hook={_backports_hook(options)}")
    command += [options.suite, work / "root.tar"]
    if options.mirror:
        command.append(options.mirror)
    _run(command, detail)


def _backports_hook(options: ImageOptions) -> str:
    """Return shell that adds the backports, and prefers their kernel and Mesa, now and later."""
    line = f"s/ {options.suite} main.*/ {options.backports} main/p"
    release = f"Pin: release n={options.backports}"
    pin = f"Package: src:linux* src:mesa*\\n{release}\\nPin-Priority: 700\\n"
    return (
        f'sed -n "{line}" "$1"/etc/apt/sources.list | head -n 1'
        ' > "$1"/etc/apt/sources.list.d/backports.list'
        f' && printf "{pin}" > "$1"/etc/apt/preferences.d/hesper'
    )


_GRUB = """insmod part_gpt
insmod ext2
search --no-floppy --label --set=root {label}
linux /vmlinuz root=LABEL={label} rw quiet console={serial} console=tty0
initrd /initrd.img
boot
"""

ENVIRONMENT = """# OpenGL by zink on Venus; by llvmpipe where the host's GPU lacks what zink needs.
MESA_LOADER_DRIVER_OVERRIDE=zink
# Vulkan's pictures reach windows through memory.  Where the desktop itself is drawn by zink,
# taking this away saves copies.
MESA_VK_WSI_DEBUG=sw
# A program hears from vkAllocateMemory itself that there is no memory.
VN_PERF=no_async_mem_alloc
"""

_PROFILE = """# The desktop, once the user has logged in on the screen; a shell when it has ended.
if [ "$(tty)" = /dev/tty1 ]; then
    {session} > "$HOME/.desktop.log" 2>&1
    echo "The desktop has ended ($?). Start it again: {session}"
fi
"""

_LIGHTDM = """[Seat:*]
autologin-user={user}
"""

_MESSAGE = """
Vulkan and OpenGL are drawn by the host's GPU: vulkaninfo --summary, vkcube{wsi}
"""

_NETWORK = """[Match]
Name=en* eth*
[Network]
DHCP=yes
"""


def write_files(options: ImageOptions, path: Path) -> None:
    """Write the files that are added to Debian's into an archive."""
    user = options.user
    serial = _SERIAL[options.architecture]
    files = {
        "etc/fstab": f"LABEL={LABEL} / ext4 rw,discard 0 1\n",
        "etc/environment": ENVIRONMENT,
        "etc/hostname": "hesper-guest\n",
        "etc/hosts": "127.0.0.1 localhost hesper-guest\n::1 localhost\n",
        f"etc/sudoers.d/{user}": f"{user} ALL=(ALL) NOPASSWD: ALL\n",
        "etc/systemd/network/80-dhcp.network": _NETWORK,
        "etc/sysctl.d/50-dmesg.conf": "kernel.dmesg_restrict = 0\n",
        "etc/motd": _MESSAGE.format(wsi=" --wsi wayland" if options.is_wayland else ""),
        "root/grub.cfg": _GRUB.format(label=LABEL, serial=serial),
        "root/setup": _setup_script(options),
    }
    for getty in ("getty@tty1", f"serial-getty@{serial}"):
        start = f"-/sbin/agetty --autologin {user} --noclear %I $TERM"
        files[f"etc/systemd/system/{getty}.service.d/autologin.conf"] = (
            f"[Service]\nExecStart=\nExecStart={start}\n"
        )
    if options.ssh_key:
        files["root/ssh-key"] = options.ssh_key + "\n"
    if session := SESSIONS.get(options.desktop):
        files["etc/profile.d/zz-desktop.sh"] = _PROFILE.format(session=session)
    if options.desktop == "xorg":
        files["etc/xdg/openbox/autostart"] = "spice-vdagent\n"
    if "lightdm" in DESKTOPS[options.desktop]:
        files["etc/lightdm/lightdm.conf.d/50-hesper.conf"] = _LIGHTDM.format(user=user)
    with tarfile.open(path, "w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            entry.mode = 0o440 if "sudoers" in name else 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))


def _setup_script(options: ImageOptions) -> str:
    """What is done inside the new system."""
    user = options.user
    lines = [
        "set -e",
        f"useradd --create-home --shell /bin/bash --groups sudo,video,render,audio,input {user}",
        f"passwd --delete {user}",
        "systemctl enable systemd-networkd systemd-resolved",
    ]
    if options.ssh_key:
        home = f"/home/{user}/.ssh"
        lines += [
            f"install -d -m 700 -o {user} -g {user} {home}",
            f"install -m 600 -o {user} -g {user} /root/ssh-key {home}/authorized_keys",
            "rm /root/ssh-key",
        ]
    return "\n".join(lines) + "\n"


def _make_disk(options: ImageOptions, work: Path, disk: Path, detail: Step) -> None:
    """Put the pieces into a partitioned image."""
    with disk.open("wb") as file:
        file.truncate(options.size)
    root_size = options.size - ROOT_START - END_RESERVE
    _run(
        ["sfdisk", "--quiet", disk],
        detail,
        text=(
            "label: gpt\n"
            f"start={EFI_START // SECTOR}, size={EFI_SIZE // SECTOR}, type=uefi, name=efi\n"
            f"start={ROOT_START // SECTOR}, size={root_size // SECTOR}, type=linux, name=root\n"
        ),
    )
    efi = f"{disk}@@{EFI_START}"
    program = _EFI[options.architecture][1]
    _run(["mformat", "-i", efi, "-T", str(EFI_SIZE // SECTOR), "-F", "::"], detail)
    _run(["mmd", "-i", efi, "::/EFI", "::/EFI/BOOT"], detail)
    _run(["mcopy", "-i", efi, work / program, f"::/EFI/BOOT/{program}"], detail)
    # Unpacked and read in one fake root, which remembers whose the files are.
    script = (
        'mkdir "$1"/root && tar -C "$1"/root --exclude="./dev/*" -xf "$1"/root.tar && '
        'mke2fs -q -t ext4 -L "$2" -E "offset=$3" -d "$1"/root "$4" "$5"'
    )
    fake = [] if os.geteuid() == 0 else ["fakeroot"]
    arguments = [str(work), LABEL, str(ROOT_START), str(disk), f"{root_size >> 10}k"]
    _run([*fake, "sh", "-c", script, "sh", *arguments], detail)
