"""What is in the images of `hesper guest build`: its desktops, and how they start."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from hesper.vm import guest_opengl
from hesper.vm.cloud import Seed
from hesper.vm.desktops import CLIPBOARD_PROGRAM, DESKTOPS
from hesper.vm.guest_image import ImageOptions, write_files


def image_files(options: ImageOptions, folder: Path) -> dict[str, str]:
    """The files that are added to Debian's, by their paths from the root."""
    write_files(options, folder / "files.tar")
    with tarfile.open(folder / "files.tar") as archive:
        return {
            entry.name: file.read().decode()
            for entry in archive
            if (file := archive.extractfile(entry)) is not None
        }


@pytest.mark.parametrize(
    ("desktop", "session", "hint"),
    [
        ("none", None, "vkcube\n"),
        ("weston", "weston", "vkcube --wsi wayland\n"),
        ("sway", "WLR_RENDERER=vulkan sway", "vkcube --wsi wayland\n"),
        ("xorg", "startx /usr/bin/openbox-session", "vkcube\n"),
        ("xfce", None, "vkcube\n"),
        ("gnome", None, "vkcube\n"),
        ("kde", "startplasma-wayland", "vkcube\n"),
    ],
)
def test_an_image_starts_its_desktop_and_says_what_draws(
    tmp_path: Path, desktop: str, session: str | None, hint: str
) -> None:
    options = ImageOptions(output=tmp_path / "image", desktop=desktop, user="somebody")
    files = image_files(options, tmp_path)
    assert files["etc/motd"].endswith(hint)
    assert files["etc/sysctl.d/50-dmesg.conf"] == "kernel.dmesg_restrict = 0\n"
    profile = files.get("etc/profile.d/zz-desktop.sh", "")
    assert (f"    {session} >" in profile) == (session is not None)
    checked = subprocess.run(["sh", "-n"], input=profile, text=True, check=False)
    assert checked.returncode == 0
    managers = {"xfce": "lightdm/lightdm.conf.d/50-hesper.conf", "gnome": "gdm3/daemon.conf"}
    for one, name in managers.items():
        assert ("=somebody\n" in files.get(f"etc/{name}", "")) == (desktop == one)
    # Desktops start the agent of X by themselves; those that have another instead are told of it.
    packages = DESKTOPS[desktop].packages
    starts = [name for name, text in files.items() if f"/{CLIPBOARD_PROGRAM}\n" in text]
    if desktop in {"sway", "kde"}:
        assert starts
        assert {"wl-clipboard", "python3"} <= set(packages)
        compile(files[CLIPBOARD_PROGRAM], CLIPBOARD_PROGRAM, "exec")
        assert 'ATTR{name}=="com.redhat.spice.0"' in "".join(files.values())
    else:
        assert starts == []
        assert CLIPBOARD_PROGRAM not in files
        assert ("spice-vdagent" in packages) == (desktop != "none")
    assert ("etc/xdg/openbox/autostart" in files) == (desktop == "xorg")
    assert ("systemdBoot=false\n" in files.get("etc/xdg/startkderc", "")) == (desktop == "kde")
    assert ("xwayland=true" in files.get("etc/xdg/weston/weston.ini", "")) == (desktop == "weston")


def test_letters_are_in_utf_8(tmp_path: Path) -> None:
    files = image_files(ImageOptions(output=tmp_path / "image"), tmp_path)
    assert files["etc/default/locale"] == "LANG=C.UTF-8\n"


@pytest.mark.parametrize(
    ("summary", "environment"),
    [
        (
            "deviceType = PHYSICAL_DEVICE_TYPE_CPU\ndeviceName = Virtio-GPU Venus (llvmpipe)",
            ["MESA_LOADER_DRIVER_OVERRIDE=zink", "LIBGL_ALWAYS_SOFTWARE=1", "LIBGL_KOPPER_DRI2=1"],
        ),
        (
            "deviceType = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU\ndeviceName = Virtio-GPU Venus (a GPU)",
            ["MESA_LOADER_DRIVER_OVERRIDE=zink"],
        ),
        ("deviceType = PHYSICAL_DEVICE_TYPE_CPU\ndeviceName = llvmpipe", []),
        ("", []),
    ],
)
def test_a_guest_looks_who_draws_opengl(
    tmp_path: Path, summary: str, environment: list[str]
) -> None:
    """On X a program that was told of zink alone, on a host without a GPU, finds no OpenGL."""
    answers = {"udevadm": "exit 1", "vulkaninfo": f"cat <<'END'\n{summary}\nEND"}
    for name, answer in answers.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
    files = image_files(ImageOptions(output=tmp_path / "image"), tmp_path)
    done = subprocess.run(
        ["sh", "-c", files[guest_opengl.PROGRAM]],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == environment
    assert "LOADER_DRIVER" not in files["etc/environment"]
    service = files["etc/systemd/system/hesper-opengl.service"]
    # Nobody logs in before.
    assert "Before=systemd-user-sessions.service\n" in service
    assert f"/{guest_opengl.PROGRAM} > /{guest_opengl.CHOICE}" in service


def test_a_slow_guest_waits_for_its_gpu(tmp_path: Path) -> None:
    """Its devices take minutes; what it says of Venus without them is no failure."""
    files = image_files(ImageOptions(output=tmp_path / "image"), tmp_path)
    answers = {
        # There after two minutes, for who waits as long.
        "udevadm": '[ "${2#--timeout=}" -gt 120 ] && touch "$0.found"',
        "vulkaninfo": f"cat {tmp_path}/udevadm.found && echo Virtio-GPU Venus",
    }
    for name, answer in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)

    def look() -> str:
        return subprocess.run(
            ["sh", "-c", files[guest_opengl.PROGRAM]],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert look() == "MESA_LOADER_DRIVER_OVERRIDE=zink\n"
    (tmp_path / "udevadm").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "udevadm.found").unlink()
    assert look() == ""
    assert "TimeoutStartSec=10min\n" in files["etc/systemd/system/hesper-opengl.service"]


def test_whoever_logs_in_has_what_the_guest_has_found(tmp_path: Path) -> None:
    pam = tmp_path / "etc/pam.d"
    pam.mkdir(parents=True)
    setup = image_files(ImageOptions(output=tmp_path / "image"), tmp_path)["root/setup"]
    lines = [line for line in setup.splitlines() if "/etc/pam.d/" in line]
    script = "\n".join(lines).replace("/etc/pam.d/", f"{pam}/")
    subprocess.run(["sh", "-e"], input=script, text=True, check=True)
    told = f"session optional pam_env.so readenv=1 envfile=/{guest_opengl.CHOICE}\n"
    for name in ("common-session", "common-session-noninteractive"):
        assert (pam / name).read_text() == told
    assert "systemctl enable hesper-opengl\n" in setup


def test_cloud_images_look_who_draws_opengl_too(tmp_path: Path) -> None:
    Seed(instance="1", user="somebody").write(tmp_path / "seed")
    told = json.loads((tmp_path / "seed/user-data").read_text().partition("\n")[2])
    modes = {file["path"]: file.get("permissions") for file in told["write_files"]}
    assert modes[f"/{guest_opengl.PROGRAM}"] == "0755"
    assert modes["/etc/systemd/system/hesper-opengl.service"] == "0644"
    assert told["runcmd"] == [*guest_opengl.SET_UP, "systemctl start hesper-opengl"]


def test_nothing_complains_on_the_screen_while_an_image_boots(tmp_path: Path) -> None:
    loader = image_files(ImageOptions(output=tmp_path / "image"), tmp_path)["root/grub.cfg"]
    (line,) = (line for line in loader.splitlines() if line.startswith("linux "))
    assert {"quiet", "no_timer_check", "systemd.ssh_auto=no"} <= set(line.split())


@pytest.mark.parametrize("desktop", ["gnome", "kde"])
def test_what_every_program_of_a_large_desktop_asks_for_is_there(desktop: str) -> None:
    """Without it each start of a program waits, or says in the log that it is missing."""
    assert {"at-spi2-core", "rtkit", "pipewire-audio"} <= set(DESKTOPS[desktop].packages)
