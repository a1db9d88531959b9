"""What Hesper needs on this machine, what is missing, and what mends it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hesper.host import diagnosis as host
from hesper.host.diagnosis import BROKEN, NOTE, OK, Finding
from hesper.isolation.shader_folders import ShaderFolders
from hesper.sandbox.files import cache_folder
from hesper.sandbox.state import Layer, layers

__all__ = ["BROKEN", "NOTE", "OK", "Diagnosis", "Finding", "diagnose"]

_INSTALL = re.compile(r"^((?:sudo )?(?:apt-get install|dnf install|pacman -S|brew install)) (.+)$")


@dataclass(frozen=True)
class Diagnosis:
    """What was found out, in the order in which it matters."""

    findings: tuple[Finding, ...]
    """One or more for each topic."""

    @property
    def able(self) -> bool:
        """Whether guests can be served here."""
        return all(finding.status != BROKEN for finding in self.findings)

    @property
    def mends(self) -> tuple[str, ...]:
        """Commands that mend everything: each once, and one per package manager."""
        return tuple(merge_mends(finding.mend for finding in self.findings))


def diagnose(environ: Mapping[str, str] = os.environ) -> Diagnosis:
    """Look at everything Hesper needs on this machine.

    environ: variables by which the Vulkan loader searches for drivers.  Takes seconds, as drivers
    are asked for their devices.
    """
    found = [*host.diagnose(environ), *map(_layer, layers()), _shaders(environ), *_video()]
    return Diagnosis(tuple(found))


def _layer(layer: Layer) -> Finding:
    """Say whether a layer of the workers' sandbox is in force."""
    if not layer.lacks:
        return Finding("sandbox", OK, f"{layer.name}: {layer.what}")
    text = f"{layer.name}: not in force, {layer.lacks}"
    return Finding("sandbox", NOTE, text, layer.mend)


def _shaders(environ: Mapping[str, str]) -> Finding:
    """Say where compiled shaders are kept, and how much that is."""
    root = cache_folder(environ)
    there = next(each for each in (root, *root.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        text = f"not kept, {there} may not be written to: each start compiles them anew"
        return Finding("shader caches", NOTE, text, "set XDG_CACHE_HOME to a folder of yours")
    count, size = ShaderFolders(root).count()
    text = f"one a client, {count} in {root}, {size / (1 << 20):.0f} MiB"
    return Finding("shader caches", OK, text)


def _video() -> Iterator[Finding]:
    """Say whether what moves on the screens of virtual machines can be sent as a video."""
    try:
        from hesper.display.video.encoder import CODEC, EncoderError, find_ffmpeg
    except ImportError:
        return  # nor are there screens, without `hesper[display]`
    try:
        yield Finding("video", OK, f"H.264 by {find_ffmpeg()}, {CODEC}")
    except EncoderError as error:
        text = f"none, {error}: what moves on screens takes more of the network"
        yield Finding("video", NOTE, text, host.install_command(apt="ffmpeg", brew="ffmpeg"))


def merge_mends(mends: Iterable[str]) -> list[str]:
    """Commands that mend everything: each once, and one per package manager."""
    packages: dict[str, list[str]] = {}
    others: list[str] = []
    for mend in mends:
        match = _INSTALL.match(mend)
        if match:
            packages.setdefault(match[1], []).extend(match[2].split())
        elif mend and mend not in others:
            others.append(mend)
    installs = [f"{tool} {' '.join(dict.fromkeys(names))}" for tool, names in packages.items()]
    return installs + others
