"""An image made by Debian's own installer in a virtual machine: all that it takes is QEMU.

The installer is told everything beforehand (preseeding), makes the partitions and Debian's base
system; then it installs what `guest_image` says, as mmdebstrap does elsewhere.  It talks over the
serial port.
Sources: Debian's installation guide, appendix B; partman-auto's recipes.
"""

from __future__ import annotations

import collections
import queue
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hesper.vm import netboot
from hesper.vm.disks import FileKind
from hesper.vm.firmware import find_firmware
from hesper.vm.guest_image import (
    ARCHITECTURES,
    GRUB,
    LABEL,
    SERIAL,
    ImageError,
    ImageOptions,
    Step,
    preferences,
    write_files,
)
from hesper.vm.machine import Disk, Machine, default_cpus
from hesper.vm.monitor import what_is_wrong
from hesper.vm.process import QemuProcess
from hesper.vm.qemu import Qemu

MEMORY = 2 << 30
SILENCE_SECONDS = 1800.0
"""After which an installer that says nothing waits for somebody."""
LOOK_SECONDS = 15.0
"""Of silence, after which its machine is asked whether something is wrong."""
WHOLE_SECONDS = 6 * 3600.0
END_SECONDS = 10.0

_STEPS = {
    "netcfg": "the network",
    "download-installer": "its own parts",
    "partman-base": "the file system",
    "bootstrap-base": "Debian's base system (some minutes)",
    "apt-setup-udeb": "where packages come from",
    "finish-install": "the guest's own packages (some minutes)",
}
"""What it says of some of its parts."""
_SELECTED = re.compile(r"Menu item '([\w-]+)' selected")
_FAILED = re.compile(
    r"Configuring '[\w-]+' failed with error code|Kernel panic|^hesper: failed"
    r"|WARNING \*\*: package retrieval failed"
)
_ASKS = re.compile(r"Prompt: '\?' for help")
"""How a question ends.  All are answered beforehand, so it asks because something is wrong."""
_TITLE_END = re.compile(r"-{5,}$")
_CHOICES = re.compile(r"\d+: ")
MOST_QUESTION = 300
"""Characters that are told of a question."""
MOST_QUESTION_LINES = 12
DONE = "hesper: installed"


@dataclass(frozen=True, kw_only=True)
class Builder:
    """The machine that the installer runs in."""

    qemu: str | None = None
    """How QEMU is run, where it is not found by itself."""
    accelerator: str | None = None
    """None: the best that works."""


_PRESEED = """\
d-i debian-installer/language string C
d-i debian-installer/country string US
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/hostname string hesper-guest
d-i netcfg/get_hostname string hesper-guest
d-i netcfg/get_domain string
d-i netcfg/target_network_config select loopback
d-i hw-detect/load_firmware boolean false
d-i mirror/country string manual
d-i mirror/protocol select {protocol}
d-i mirror/{protocol}/hostname string {host}
d-i mirror/{protocol}/directory string {directory}
d-i mirror/{protocol}/proxy string
d-i mirror/suite string {suite}
d-i mirror/udeb/suite string {suite}
d-i passwd/root-login boolean true
d-i passwd/root-password-crypted password *
d-i passwd/make-user boolean false
d-i clock-setup/utc boolean true
d-i clock-setup/ntp boolean false
d-i time/zone string Etc/UTC
d-i partman-auto/method string regular
d-i partman-auto/disk string /dev/vda
d-i partman-auto/choose_recipe select hesper
d-i partman-auto/expert_recipe string hesper :: \
 48 48 48 free $primary{{ }} $iflabel{{ gpt }} method{{ efi }} format{{ }} . \
 1000 2000 -1 ext4 $primary{{ }} method{{ format }} format{{ }} use_filesystem{{ }} \
 filesystem{{ ext4 }} label{{ {label} }} mountpoint{{ / }} .
d-i partman-basicfilesystems/no_swap boolean false
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman-partitioning/default_label string gpt
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i base-installer/install-recommends boolean false
d-i base-installer/kernel/image string none
d-i apt-setup/services-select multiselect {services}
d-i apt-setup/enable-source-repositories boolean false
d-i apt-setup/cdrom/set-first boolean false
d-i pkgsel/run_tasksel boolean false
d-i pkgsel/update-policy select none
d-i pkgsel/upgrade select none
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/skip boolean true
d-i finish-install/reboot_in_progress note
d-i debian-installer/exit/poweroff boolean true
d-i preseed/early_command string sh /hesper/early
d-i preseed/late_command string sh /hesper/late
"""

# Its log is its only voice that names its steps and what has failed.  What starts this waits
# until nobody has its output any more.
_EARLY = """tail -n +1 -f /var/log/syslog < /dev/null > /dev/{serial} 2>&1 3>&- &
"""

_LATE = """exec > /dev/{serial} 2>&1
mkdir /target/root/hesper
cp /hesper/inside /hesper/files.tar /hesper/preferences /target/root/hesper/
if in-target --pass-stdout sh /root/hesper/inside; then
    rm -r /target/root/hesper /target/root/setup /target/root/grub.cfg
    echo {done}
else
    echo "hesper: failed"
fi
"""

_INSIDE = """set -e
export DEBIAN_FRONTEND=noninteractive
[ ! -s /root/hesper/preferences ] || cp /root/hesper/preferences /etc/apt/preferences.d/hesper
apt-get -q update
apt-get -q install -y --no-install-recommends {packages}
tar -C / -xf /root/hesper/files.tar
sh /root/setup
mkdir -p /boot/efi/EFI/BOOT
grub-mkstandalone --format={platform} --output=/boot/efi/EFI/BOOT/{program} \\
    boot/grub/grub.cfg=/root/grub.cfg
apt-get -q clean
"""


def install(
    options: ImageOptions, builder: Builder, work: Path, disk: Path, step: Step, detail: Step
) -> None:
    """Have it make the image in `disk`; `work` is a folder for what it takes.

    Raises `ImageError`, with the place of the installer's log, when it does not come to its end;
    `QemuError` and `FirmwareError` for what is missing here; `OSError`.
    """
    architecture = ARCHITECTURES[options.architecture]
    qemu = Qemu.find(architecture, builder.qemu)
    firmware = find_firmware(architecture, qemu.command[-1])
    kernel, initrd = netboot.fetch(options.mirror, options.suite, options.architecture, work, step)
    write_files(options, work / "files.tar")
    netboot.add_files(initrd, told(options, (work / "files.tar").read_bytes()))
    with disk.open("xb") as file:
        file.truncate(options.size)
    firmware.copy_variables(work / "uefi")
    serial = SERIAL[options.architecture]
    accelerator = builder.accelerator or qemu.accelerator
    machine = Machine(
        architecture=architecture,
        gpu_socket=work / "gpu",
        has_gpu=False,
        monitor_socket=work / "qmp",
        memory=MEMORY,
        cpus=default_cpus(),
        disks=[Disk(disk, FileKind.RAW)],
        kernel=kernel,
        initrd=initrd,
        append=f"priority=critical DEBIAN_FRONTEND=text console={serial} --- quiet",
        firmware=firmware,
        firmware_variables=work / "uefi",
        accelerator=accelerator,
        audio="none",
        serial="stdio",
        extra=["-no-reboot"],
    )
    step(f"starting Debian's installer in a virtual machine ({accelerator})")
    _run([*qemu.command, *machine.arguments(qemu)], machine.monitor_socket, step, detail)


def told(options: ImageOptions, files: bytes) -> dict[str, bytes]:
    """Return what the installer is told, as files of its initial RAM file system.

    files: the archive that `write_files` makes.
    """
    serial = SERIAL[options.architecture]
    mirror = urllib.parse.urlsplit(options.mirror.rstrip("/"))
    platform, program, package = GRUB[options.architecture]
    packages = [*options.chosen_packages, package, "grub-common"]
    services = ["security", "updates", "backports"] if options.backports else []
    texts = {
        "preseed.cfg": _PRESEED.format(
            protocol=mirror.scheme,
            host=mirror.netloc,
            directory=mirror.path or "/",
            suite=options.suite,
            services=", ".join(services),
            label=LABEL,
        ),
        "hesper/early": _EARLY.format(serial=serial),
        "hesper/late": _LATE.format(serial=serial, done=DONE),
        "hesper/inside": _INSIDE.format(
            packages=" ".join(packages), platform=platform, program=program
        ),
        "hesper/preferences": preferences(options),
    }
    return {name: text.encode() for name, text in texts.items()} | {"hesper/files.tar": files}


def _run(command: Sequence[str], monitor: Path, step: Step, detail: Step) -> None:
    """Run the installer's machine to its end.  Raises `ImageError`.

    monitor: its QMP socket.
    """
    # Kept where something has failed, so not in the folder of what it takes.
    with tempfile.NamedTemporaryFile(
        prefix="hesper-installer-", suffix=".log", delete=False
    ) as log:
        place = Path(log.name)
        try:
            process = QemuProcess(
                command, own_group=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
        except OSError as error:
            place.unlink()
            raise ImageError(f"cannot run {command[0]}: {error.strerror}") from None
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        assert process.stdout is not None
        threading.Thread(target=_read, args=[process.stdout, log, lines], daemon=True).start()
        try:
            reason = follow(lines, step, detail, lambda: what_is_wrong(str(monitor)))
            if not reason:
                process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            reason = "its machine does not end"
        finally:
            process.kill()
            process.wait_for_end()
    if reason:
        raise ImageError(f"Debian's installer has failed: {reason}; its log: {place}")
    place.unlink()


def _read(stream: IO[bytes], log: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    """Pass on lines, and at last None; `log` gets all of it."""
    for line in stream:
        log.write(line)
        log.flush()
        lines.put(line.decode(errors="replace").strip())
    lines.put(None)


def follow(
    lines: queue.SimpleQueue[str | None], step: Step, detail: Step, trouble: Callable[[], str]
) -> str:
    """Tell of the installer by what it says, to the end; return why it has failed, or nothing.

    trouble: asked, when it is silent, what is wrong with its machine; empty: nothing.
    """
    end = time.monotonic() + WHOLE_SECONDS
    done = False
    heard: collections.deque[str] = collections.deque(maxlen=MOST_QUESTION_LINES)
    while True:
        try:
            line = _next(lines, end, trouble)
        except ImageError as error:
            return str(error)
        if line is None:
            return "" if done else "its machine has ended"
        if _FAILED.search(line):
            return line
        if _ASKS.search(line):
            return f"it asks what nobody is there to answer: {_question(heard)}"
        heard.append(line)
        done = done or line.endswith(DONE)
        if (selected := _SELECTED.search(line)) and selected[1] in _STEPS:
            step(f"installing: {_STEPS[selected[1]]}")
        if line:
            detail(line)


def _next(
    lines: queue.SimpleQueue[str | None], end: float, trouble: Callable[[], str]
) -> str | None:
    """Wait for what it says next.  Raises `ImageError` where nothing more is to come."""
    now = time.monotonic()
    silence = now + SILENCE_SECONDS
    while now < min(silence, end):
        try:
            return lines.get(timeout=min(LOOK_SECONDS, silence - now, end - now))
        except queue.Empty:
            if reason := trouble():
                raise ImageError(reason) from None
        now = time.monotonic()
    if now >= end:
        raise ImageError(f"it has not come to its end in {WHOLE_SECONDS / 3600:g} hours")
    raise ImageError(f"it has said nothing for {SILENCE_SECONDS / 60:g} minutes")


def _question(heard: Sequence[str]) -> str:
    """What is asked, by the lines before: under a title that is underlined, without the choices."""
    lines: list[str] = []
    for line in heard:
        if _TITLE_END.fullmatch(line):
            lines.clear()
        elif line and not _CHOICES.match(line):
            lines.append(line)
    return " ".join(lines)[:MOST_QUESTION]
