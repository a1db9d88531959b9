"""A Vulkan layer that shows a driver as a guest sees it, and how a program is given it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NAME = "VK_LAYER_HESPER_guest_view"
"""As `guest_view.json` says."""


def noting(path: Path) -> Mapping[str, str]:
    """Variables for a guest's program: with them it notes in `path` what it sees of its driver."""
    return {**_layer(), "GUEST_VIEW_WRITE": str(path)}


def showing(path: Path) -> Mapping[str, str]:
    """Variables for a program: with them it sees of its driver only what `path` says."""
    return {**_layer(), "GUEST_VIEW_READ": str(path)}


def _layer() -> Mapping[str, str]:
    """How the Vulkan loader finds the layer."""
    return {"VK_ADD_LAYER_PATH": str(Path(__file__).parent), "VK_INSTANCE_LAYERS": NAME}
