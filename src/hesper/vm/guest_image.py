"""A bootable Debian for guests: what is in it, whoever installs it (`image_builder`)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hesper.errors import HesperError
from hesper.vm import guest_containers, guest_opengl
from hesper.vm.desktops import DESKTOPS

MEBI = 1 << 20
LEAST_SIZE = 3 << 30
LABEL = "hesper-root"

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

USES = {"": (), "containers": guest_containers.PACKAGES}
"""Packages for what a guest is for."""

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's names to QEMU's, and Linux's."""

GRUB = {
    "amd64": ("x86_64-efi", "BOOTX64.EFI", "grub-efi-amd64-bin"),
    "arm64": ("arm64-efi", "BOOTAA64.EFI", "grub-efi-arm64-bin"),
}
"""By Debian's architecture: GRUB's platform, the firmware's default program, the package."""

PAGES = {"amd64": ("4k",), "arm64": ("16k", "4k")}
"""By Debian's architecture: sizes of the kernel's pages, the default first.  On Apple Silicon,
whose pages have 16 KiB, a guest with pages as large has Venus whatever its Mesa, unless its kernel
knows of the host's: see `_SAME_KERNEL`."""

SERIAL = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
"""By Debian's architecture: the serial port of the machine that `hesper vm` makes."""


Step = Callable[[str], None]
"""Told what is being done."""


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
    use: str = ""
    """What it is for, of `USES`."""
    packages: Sequence[str] = ()
    user: str = "guest"
    ssh_key: str = ""
    """A public key that may log in as the user."""
    mirror: str = ""
    """Where packages come from; the distribution's own servers if empty."""

    def __post_init__(self) -> None:
        """Check them."""
        if self.architecture not in PAGES:
            raise ImageError(f"architecture {self.architecture}: must be one of {', '.join(PAGES)}")
        if self.pages and self.pages not in PAGES[self.architecture]:
            known = " or ".join(PAGES[self.architecture])
            raise ImageError(
                f"pages of {self.pages}: Debian's kernel for {self.architecture} has {known}"
            )
        if self.desktop not in DESKTOPS:
            raise ImageError(f"desktop {self.desktop}: must be one of {', '.join(DESKTOPS)}")
        if self.use not in USES:
            raise ImageError(f"no image for {self.use}: must be for one of {', '.join(USES)}")
        if self.size < LEAST_SIZE or self.size % MEBI:
            raise ImageError(f"size {self.size}: must be whole MiB, {LEAST_SIZE >> 30}G at least")
        if not self.user.isidentifier() or not self.user.islower():
            raise ImageError(f"user {self.user!r}: use small letters")
        if len(self.ssh_key.splitlines()) > 1:
            raise ImageError("the SSH key must be one line")

    @property
    def kernel(self) -> str:
        """The kernel's package."""
        return "linux-image-" + ("arm64-16k" if self.has_large_pages else self.architecture)

    @property
    def has_large_pages(self) -> bool:
        """Whether the kernel's pages have more than 4 KiB."""
        return (self.pages or PAGES[self.architecture][0]) == "16k"

    @property
    def chosen_packages(self) -> list[str]:
        """All packages but the boot loader's, which who installs it knows."""
        desktop = DESKTOPS[self.desktop]
        return [*_BASE, *desktop.packages, *USES[self.use], *self.packages, self.kernel]

    @property
    def backports(self) -> str:
        """The suite's backports, with a newer kernel and Mesa; empty for sid and the like."""
        return "" if self.suite in {"sid", "unstable", "testing"} else f"{self.suite}-backports"


# An emulated PC's timer may be late where the host is busy: Linux would take it for a broken one.
# systemd would have SSH listen on sockets to the host, and complain on the screen of their lack.
_LINUX_OPTIONS = "rw quiet no_timer_check systemd.ssh_auto=no"

_GRUB = """insmod part_gpt
insmod ext2
search --no-floppy --label --set=root {label}
linux /vmlinuz root=LABEL={label} {options} console={serial} console=tty0
initrd /initrd.img
boot
"""

ENVIRONMENT = """# Vulkan's pictures reach windows through memory.  Where the desktop itself is
# drawn by zink, taking this away saves copies.
MESA_VK_WSI_DEBUG=sw
# A program hears from vkAllocateMemory itself that there is no memory.
VN_PERF=no_async_mem_alloc
"""

_PREFERENCES = """Package: {packages}
Pin: release n={backports}
Pin-Priority: 700
"""

_SAME_KERNEL = """Explanation: Linux from 7.2 on refuses what Mesa before 26.2.4 shares with
Explanation: a host whose pages have 16 KiB, also Mesa of a container's.  That of {suite} is older.
"""

_PROFILE = """# The desktop, once the user has logged in on the screen; a shell when it has ended.
if [ "$(tty)" = /dev/tty1 ]; then
    {session} > "$HOME/.desktop.log" 2>&1
    echo "The desktop has ended ($?). Start it again: {session}"
fi
"""

_MESSAGE = """
Vulkan and OpenGL are drawn by the host's GPU: vulkaninfo --summary, vkcube{wsi}
{use}"""

_NETWORK = """[Match]
Name=en* eth*
[Network]
DHCP=yes
"""


def write_files(options: ImageOptions, path: Path) -> None:
    """Write the files that are added to Debian's into an archive."""
    user = options.user
    serial = SERIAL[options.architecture]
    desktop = DESKTOPS[options.desktop]
    files = {
        "etc/fstab": f"LABEL={LABEL} / ext4 rw,discard 0 1\n",
        "etc/environment": ENVIRONMENT,
        # Every libc has it; terminals and Qt want letters in UTF-8.
        "etc/default/locale": "LANG=C.UTF-8\n",
        "etc/hostname": "hesper-guest\n",
        "etc/hosts": "127.0.0.1 localhost hesper-guest\n::1 localhost\n",
        f"etc/sudoers.d/{user}": f"{user} ALL=(ALL) NOPASSWD: ALL\n",
        "etc/systemd/network/80-dhcp.network": _NETWORK,
        "etc/sysctl.d/50-dmesg.conf": "kernel.dmesg_restrict = 0\n",
        **guest_opengl.FILES,
        "etc/motd": _MESSAGE.format(
            wsi=" --wsi wayland" if desktop.is_wayland else "",
            use=guest_containers.MESSAGE if options.use == "containers" else "",
        ),
        "root/grub.cfg": _GRUB.format(label=LABEL, options=_LINUX_OPTIONS, serial=serial),
        "root/setup": _setup_script(options),
    }
    for getty in ("getty@tty1", f"serial-getty@{serial}"):
        start = f"-/sbin/agetty --autologin {user} --noclear %I $TERM"
        files[f"etc/systemd/system/{getty}.service.d/autologin.conf"] = (
            f"[Service]\nExecStart=\nExecStart={start}\n"
        )
    if options.use == "containers":
        files |= guest_containers.FILES
    if options.ssh_key:
        files["root/ssh-key"] = options.ssh_key + "\n"
    if desktop.session:
        files["etc/profile.d/zz-desktop.sh"] = _PROFILE.format(session=desktop.session)
    files |= desktop.files_for(user)
    with tarfile.open(path, "w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            entry.mode = 0o440 if "sudoers" in name else 0o755 if "/bin/" in name else 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))


def preferences(options: ImageOptions) -> str:
    """What has apt take Mesa from the backports, now and later; empty without any.

    The kernel as well, unless its pages are larger than most: that has to be older than 7.2.
    """
    if not options.backports:
        return ""
    if options.has_large_pages:
        return _SAME_KERNEL.format(suite=options.suite) + _PREFERENCES.format(
            packages="src:mesa*", backports=options.backports
        )
    return _PREFERENCES.format(packages="src:linux* src:mesa*", backports=options.backports)


def _setup_script(options: ImageOptions) -> str:
    """What is done inside the new system."""
    user = options.user
    lines = [
        "set -e",
        f"useradd --create-home --shell /bin/bash --groups sudo,video,render,audio,input {user}",
        f"passwd --delete {user}",
        "systemctl enable systemd-networkd systemd-resolved",
        *guest_opengl.SET_UP,
    ]
    if options.ssh_key:
        home = f"/home/{user}/.ssh"
        lines += [
            f"install -d -m 700 -o {user} -g {user} {home}",
            f"install -m 600 -o {user} -g {user} /root/ssh-key {home}/authorized_keys",
            "rm /root/ssh-key",
        ]
    return "\n".join(lines) + "\n"
