"""By whom a guest's OpenGL is drawn: by zink on Venus, whatever the host's Vulkan is.

It depends on the host, and so it is looked at whenever the guest boots.  zink takes a device that
is a processor (lavapipe) only if told to; a program on X (GLX) that was told of zink alone finds
nothing there, not even Mesa's own software, and ends: parts of a desktop do.
"""

from __future__ import annotations

PROGRAM = "usr/local/bin/hesper-opengl"
CHOICE = "run/hesper-opengl"
"""What the program has said: lines of an environment."""

_PROGRAM = """#!/bin/sh
# Prints what has OpenGL drawn by zink on Venus; nothing where there is no Venus: Mesa chooses.
set -u
# Modules are loaded, and devices made, since the boot began; is the GPU there?  Emulated, that
# takes minutes; who looks too early has the guest's processors draw OpenGL until the next boot.
udevadm settle --timeout=300
found=$(VK_LOADER_DRIVERS_SELECT='virtio*' vulkaninfo --summary 2>/dev/null)
case $found in
*'Virtio-GPU Venus'*) echo MESA_LOADER_DRIVER_OVERRIDE=zink ;;
*) exit 0 ;;
esac
case $found in
*PHYSICAL_DEVICE_TYPE_CPU*)
    # The host draws on its processor: zink wants to be told that this is meant.
    echo LIBGL_ALWAYS_SOFTWARE=1
    # X draws without it then, and has no DRI3.
    echo LIBGL_KOPPER_DRI2=1
    ;;
esac
"""

_SERVICE = f"""[Unit]
Description=Look who draws OpenGL
Before=systemd-user-sessions.service

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=10min
ExecStart=/bin/sh -c '/{PROGRAM} > /{CHOICE}'

[Install]
WantedBy=multi-user.target
"""

FILES = {
    PROGRAM: _PROGRAM,
    "etc/systemd/system/hesper-opengl.service": _SERVICE,
}
"""By their paths from the root."""

_SESSION = f"session optional pam_env.so readenv=1 envfile=/{CHOICE}"

SET_UP = (
    "systemctl enable hesper-opengl",
    # Whatever begins a session has it: consoles, SSH, display managers, sudo.
    f"echo '{_SESSION}' >> /etc/pam.d/common-session",
    f"echo '{_SESSION}' >> /etc/pam.d/common-session-noninteractive",
)
"""Commands in the new system."""
