"""Khronos' validation layer, switched on for a program, and what it has said."""

from __future__ import annotations

import re
from pathlib import Path

from servers import Place

STARTED = "createinstance-status-message"
"""Part of what every version of the layer says when a program makes an instance."""
TOO_NEW = "includes a structure with unknown VkStructureType"
"""What a layer older than the guest's Mesa says of what Mesa asks by itself."""


def layer(
    folder: Path, place: Place, *, log: bool = False, hazards: bool = False
) -> dict[str, str]:
    """Variables that switch the layer on in `place`.

    It writes to `folder`/log, or to the standard output: each process would begin that file anew.
    hazards: have it look for them, too (synchronization validation).
    """
    folder.mkdir()
    settings = {
        "debug_action": "VK_DBG_LAYER_ACTION_LOG_MSG",
        "report_flags": "error,info",
        "log_filename": f"{place.path(folder)}/log" if log else "stdout",
        "duplicate_message_limit": 0,
    }
    if hazards:
        settings["enables"] = "VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT"
    lines = [f"khronos_validation.{name} = {value}\n" for name, value in settings.items()]
    (folder / "vk_layer_settings.txt").write_text("".join(lines))
    return {
        "VK_INSTANCE_LAYERS": "VK_LAYER_KHRONOS_validation",
        "VK_LAYER_SETTINGS_PATH": place.path(folder),
    }


def errors(log: str) -> dict[str, str]:
    """The first message of each kind of error, by its id; the layer must have been active."""
    assert STARTED in log.lower(), "the layer was not loaded"
    found: dict[str, str] = {}
    for message in re.findall(r"Validation Error: .*", log):
        if TOO_NEW in message:
            continue
        name = re.search(r"\[ (\S+) \]", message)
        assert name, message
        found.setdefault(name[1], message)
    return found
