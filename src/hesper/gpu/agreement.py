"""What device and driver have agreed on: features that were offered and chosen.

Source: VIRTIO 1.3, section 5.7.3 "Feature bits".
"""

from __future__ import annotations

from hesper.gpu.wire import Command, Feature
from hesper.log import get_logger

FEATURES = (
    Feature.VIRGL
    | Feature.EDID
    | Feature.RESOURCE_UUID
    | Feature.RESOURCE_BLOB
    | Feature.CONTEXT_INIT
    | Feature.BLOB_ALIGNMENT
)
"""What is offered."""

_NEEDED: dict[int, int] = {
    **dict.fromkeys(
        (
            Command.GET_CAPSET_INFO,
            Command.GET_CAPSET,
            Command.CTX_CREATE,
            Command.CTX_DESTROY,
            Command.CTX_ATTACH_RESOURCE,
            Command.CTX_DETACH_RESOURCE,
            Command.SUBMIT_3D,
        ),
        int(Feature.VIRGL),
    ),
    **dict.fromkeys(
        (
            Command.RESOURCE_CREATE_BLOB,
            Command.RESOURCE_MAP_BLOB,
            Command.RESOURCE_UNMAP_BLOB,
            Command.SET_SCANOUT_BLOB,
        ),
        int(Feature.RESOURCE_BLOB),
    ),
    Command.GET_EDID: int(Feature.EDID),
    Command.RESOURCE_ASSIGN_UUID: int(Feature.RESOURCE_UUID),
}
"""The feature that a driver must have chosen to send a command; the others need none."""

_log = get_logger(__name__)


class Agreement:
    """What the driver has chosen; nothing at first.

    A VMM between them may have taken features out of the offer, for which it has no part: QEMU
    11.1's vhost-user-gpu-pci has no region to map blobs into.
    """

    def __init__(self) -> None:
        """Nothing is agreed on."""
        self._chosen = 0

    def choose(self, features: int) -> None:
        """Note what the driver has chosen; other bits are of no interest."""
        self._chosen = features
        if features & Feature.VIRGL and not features & Feature.RESOURCE_BLOB:
            _log.warning(
                "the guest has screens, and no Vulkan: it is without blobs",
                reason="its VMM has none (as QEMU's vhost-user-gpu-pci), or its Linux is too old",
            )

    def allows(self, command: int) -> bool:
        """Whether the driver may send `command`."""
        return not _NEEDED.get(command, 0) & ~self._chosen
