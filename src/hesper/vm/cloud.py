"""What a distribution's cloud image is told at its first start: a user, a key, Mesa's packages.

cloud-init finds it on a disk that is called CIDATA, which QEMU makes of a folder.  Source:
cloud-init's documentation, "NoCloud".
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from hesper.vm import guest_opengl
from hesper.vm.devices import escape
from hesper.vm.guest_image import ENVIRONMENT

PACKAGES = ("mesa-vulkan-drivers", "vulkan-tools")
_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, kw_only=True)
class Seed:
    """What the image is told."""

    instance: str
    """Another one makes it a first start."""
    user: str
    key: str = ""
    """Public SSH key that may log in; empty for none."""
    password: str = ""

    def write(self, folder: Path) -> None:
        """Write the files.  Raises `OSError`."""
        user: dict[str, object] = {
            "name": self.user,
            "groups": ["sudo", "video", "render", "audio", "input"],
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "shell": "/bin/bash",
        }
        if self.key:
            user["ssh_authorized_keys"] = [self.key]
        if self.password:
            user |= {"lock_passwd": False, "plain_text_passwd": self.password}
        told = {
            "users": [user],
            "package_update": True,
            "packages": list(PACKAGES),
            "write_files": [
                {"path": "/etc/environment", "content": ENVIRONMENT, "append": True},
                *(
                    {
                        "path": f"/{name}",
                        "content": text,
                        "permissions": "0755" if "/bin/" in name else "0644",
                    }
                    for name, text in guest_opengl.FILES.items()
                ),
            ],
            # Once the packages are there.
            "runcmd": [*guest_opengl.SET_UP, "systemctl start hesper-opengl"],
        }
        # JSON is YAML, and nothing in it has to be escaped for that.
        data = "#cloud-config\n" + json.dumps(told, indent=1) + "\n"
        names = {"instance-id": self.instance, "local-hostname": "hesper-guest"}
        folder.mkdir()
        (folder / "user-data").write_text(data, encoding="utf-8")
        (folder / "meta-data").write_text(json.dumps(names) + "\n", encoding="utf-8")


def own_key(path: Path | None = None) -> str:
    """Return the public key in `path`, else this user's first; empty where there is none.

    Raises `OSError` for `path`, and `ValueError` for what is no public key.
    """
    if path is None:
        found = [key for name in _KEYS if (key := Path.home() / ".ssh" / name).is_file()]
        if not found:
            return ""
        path = found[0]
    text = path.read_text(encoding="utf-8").strip()
    if len(text.splitlines()) != 1 or not text.startswith(("ssh-", "ecdsa-", "sk-")):
        raise ValueError(f"{path} is no public key of SSH")
    return text


def made_up_password() -> str:
    """A password that nobody guesses."""
    return "".join(secrets.choice(_LETTERS) for _ in range(10))


def seed_arguments(folder: Path) -> list[str]:
    """Show the folder to the guest as a disk."""
    node = f"driver=vvfat,node-name=seed,dir={escape(folder)},label=CIDATA,read-only=on"
    return ["-blockdev", node, "-device", "virtio-blk-pci,drive=seed"]
