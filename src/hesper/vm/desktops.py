"""The desktops that a guest's image can have: their packages, and the files that start them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

CLIPBOARD_PROGRAM = "usr/local/bin/hesper-clipboard"
_SOUND = ("pipewire-audio", "alsa-utils")
_OF_LARGE = ("at-spi2-core", "rtkit")
"""What every program of the large desktops asks for on its start, and waits for: how blind people
use it, and turns of the processor for what must not be late."""
_OF_SWAY = ("wl-clipboard", "python3")
"""What the guest's clipboard program needs."""

_WESTON = """[core]
xwayland=true
[autolaunch]
path=/usr/bin/spice-vdagent
"""

_LIGHTDM = """[Seat:*]
autologin-user={user}
"""

_GDM = """[daemon]
AutomaticLoginEnable=true
AutomaticLogin={user}
"""

# Whoever sits at the screen shares the clipboard, as logind gives him the sound card.
_PORT_RULE = """SUBSYSTEM=="virtio-ports", ATTR{{name}}=="com.redhat.spice.0", TAG+="uaccess"
"""

# Started by systemd, kwin takes any session of the user's for that of the screen: at times the
# serial port's, where nothing can be shown.  And systemd ends what takes long to start.
_PLASMA = """[General]
systemdBoot=false
"""

_AUTOSTART = f"""[Desktop Entry]
Type=Application
Name=Clipboard of the host
Exec=/{CLIPBOARD_PROGRAM}
NoDisplay=true
"""


@dataclass(frozen=True, kw_only=True)
class Desktop:
    """One of them."""

    packages: tuple[str, ...] = ()
    session: str = ""
    """What starts it once the user has logged in on the first console; empty: a display manager."""
    is_wayland: bool = False
    """Whether its windows are Wayland's alone."""
    files: Mapping[str, str] = field(default_factory=dict)
    """By their paths from the root; `{user}` stands for the user, other braces are doubled."""
    has_own_agent: bool = False
    """Whether the clipboard is shared by `guest_clipboard`, where spice-vdagent cannot."""

    def files_for(self, user: str) -> dict[str, str]:
        """Return its files."""
        own = {name: text.format(user=user) for name, text in self.files.items()}
        if self.has_own_agent:
            program = files("hesper.vm") / "guest_clipboard.py"
            own[CLIPBOARD_PROGRAM] = program.read_text(encoding="utf-8")
        return own


DESKTOPS = {
    "none": Desktop(),
    "weston": Desktop(
        # What X programs copy weston passes on, and the other way round: the agent is one.
        packages=("weston", "seatd", "foot", "xwayland", "spice-vdagent", *_SOUND),
        session="weston",
        is_wayland=True,
        files={"etc/xdg/weston/weston.ini": _WESTON},
    ),
    "sway": Desktop(
        packages=("sway", "seatd", "foot", *_OF_SWAY, *_SOUND),
        # Its other renderer asks for a GPU that is none of software.
        session="WLR_RENDERER=vulkan sway",
        is_wayland=True,
        # It lets X programs at the clipboard only while a window of X's has the keyboard.
        has_own_agent=True,
        files={
            "etc/sway/config.d/hesper.conf": f"exec /{CLIPBOARD_PROGRAM}\n",
            "etc/udev/rules.d/70-hesper-clipboard.rules": _PORT_RULE,
        },
    ),
    "xorg": Desktop(
        packages=(
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
        session="startx /usr/bin/openbox-session",
        files={"etc/xdg/openbox/autostart": "spice-vdagent\n"},
    ),
    "xfce": Desktop(
        packages=(
            "xserver-xorg",
            "xfce4",
            "xfce4-terminal",
            "lightdm",
            "mesa-utils",
            # Clipboard, and the size that a viewer wants.
            "spice-vdagent",
            *_SOUND,
        ),
        files={"etc/lightdm/lightdm.conf.d/50-hesper.conf": _LIGHTDM},
    ),
    "gnome": Desktop(
        packages=(
            "gnome-session",
            "gdm3",
            "gnome-terminal",
            "nautilus",
            "mesa-utils",
            "spice-vdagent",
            *_OF_LARGE,
            *_SOUND,
        ),
        files={"etc/gdm3/daemon.conf": _GDM},
    ),
    "kde": Desktop(
        packages=(
            "plasma-desktop",
            "qt6-wayland",
            "kscreen",
            "plasma-pa",
            "systemsettings",
            # The screen that goes dark, and sleep; its lock's settings.
            "powerdevil",
            "kde-config-screenlocker",
            # What programs in the sandbox, and browsers, ask of the desktop.
            "xdg-desktop-portal-kde",
            "konsole",
            "dolphin",
            "mesa-utils",
            *_OF_SWAY,
            *_OF_LARGE,
            *_SOUND,
        ),
        session="startplasma-wayland",
        has_own_agent=True,
        files={
            "etc/xdg/startkderc": _PLASMA,
            "etc/xdg/autostart/hesper-clipboard.desktop": _AUTOSTART,
            "etc/udev/rules.d/70-hesper-clipboard.rules": _PORT_RULE,
        },
    ),
}
"""By what `hesper guest build --desktop` calls them."""
