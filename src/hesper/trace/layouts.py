"""Images for others lie here as they lay then.

A guest makes one with a list of modifiers, and asks how the driver has laid it out.  What it then
sees in the image's memory it sees there: so a replay insists on that layout, as one who imports
such an image does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hesper.trace.decoded import Decoded

_LIST = "VkImageDrmFormatModifierListCreateInfoEXT"
_EXPLICIT = "VkImageDrmFormatModifierExplicitCreateInfoEXT"
_LINEAR = 0
"""DRM_FORMAT_MOD_LINEAR: nothing else is offered to guests."""


def insist(then: Decoded, offset: int, pitch: int) -> None:
    """Have a vkCreateImage make an image whose first row begins there, with rows so far apart."""
    layout = {"offset": offset, "rowPitch": pitch}
    explicit = {
        "drmFormatModifier": _LINEAR,
        "drmFormatModifierPlaneCount": 1,
        "pPlaneLayouts": [layout],
    }
    _replace(then, _LIST, (_EXPLICIT, explicit))


def relent(then: Decoded) -> bool:
    """Leave the layout to the driver again; whether it was insisted on."""
    listed = {"drmFormatModifierCount": 1, "pDrmFormatModifiers": [_LINEAR]}
    return _replace(then, _EXPLICIT, (_LIST, listed))


def _replace(then: Decoded, name: str, by: tuple[str, dict[str, Any]]) -> bool:
    info = (then.parameters or {}).get("pCreateInfo") or {}
    chain = info.get("pNext") or []
    info["pNext"] = [by if each[0] == name else each for each in chain]
    return any(each[0] == name for each in chain)
