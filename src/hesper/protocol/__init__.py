"""What the bytes mean: the Vulkan registry compiled to wire programs.

At build time `hesper.protocol.compiler` reads the registry (package `vulkan-object`) and the
TOML files in `facts/`, and writes the model (`model.json`, read back by `load`), its summary
(`summary.json`) and the C tables that the kernel interprets.  All are made from the same model;
nothing is written twice.
"""

from __future__ import annotations

from hesper.protocol.model import Model, Summary, load, summary

__all__ = ["Model", "Summary", "extensions", "guest_extensions", "load", "summary"]


def extensions() -> dict[str, tuple[int, int]]:
    """Extensions whose structs and commands all have a wire format: name to (number, version).

    Source: the Venus protocol's extension list (`facts/extensions.toml`) and the registry.
    """
    return {name: (e.number, e.version) for name, e in summary().extensions.items()}


def guest_extensions() -> frozenset[str]:
    """Device extensions that a guest's driver does by itself; the host needs to know none of them.

    Those that need VK_KHR_surface, whichever other extensions there are (Source: the registry), and
    what `facts/extensions.toml` names.
    """
    return summary().guest_extensions
