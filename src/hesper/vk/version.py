"""Vulkan versions, packed as in VK_MAKE_API_VERSION with variant 0."""

from __future__ import annotations


def make_version(major: int, minor: int, patch: int = 0) -> int:
    """A version in its packed form."""
    return major << 22 | minor << 12 | patch


def minor_version(version: int) -> int:
    """The 3 of a packed 1.3.280."""
    return version >> 12 & 0x3FF


def version_text(version: int) -> str:
    """A packed version as `1.4.305`."""
    return f"{version >> 22 & 0x7F}.{minor_version(version)}.{version & 0xFFF}"
