"""`vulkan_core.h`, made from the registry by Khronos' own generator (in `vulkan-object`)."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

from vulkan_object import vkconventions
from vulkan_object.cgenerator import CGeneratorOptions, COutputGenerator
from vulkan_object.reg import Registry

_PLATFORM = """#ifndef VK_PLATFORM_H_
#define VK_PLATFORM_H_
#include <stddef.h>
#include <stdint.h>
#define VKAPI_ATTR
#define VKAPI_CALL
#define VKAPI_PTR
#endif
"""


def write(folder: Path) -> None:
    """Write `vulkan_core.h` and the `vk_platform.h` it includes into `folder`.

    Video and platform extensions stay out: their types come from further headers, and nothing
    of theirs has a wire format.
    """
    source = resources.files("vulkan_object") / "vk.xml"
    root = ElementTree.fromstring(source.read_bytes())
    platform = [
        e.get("name", "")
        for e in root.iter("extension")
        if e.get("platform", "provisional") != "provisional"
    ]
    generator = COutputGenerator(errFile=sys.stderr, warnFile=None, diagFile=None)
    options = CGeneratorOptions(
        conventions=vkconventions.VulkanConventions(),
        filename="vulkan_core.h",
        directory=str(folder),
        apiname="vulkan",
        versions=".*",
        emitversions=".*",
        defaultExtensions="vulkan",
        removeExtensions="|".join([r"VK_.*_video_.*", *platform]),
        emitExtensions=".*",
        prefixText=["#define VK_NO_PROTOTYPES 1"],
        apientryp="VKAPI_PTR *",
        apientry="VKAPI_CALL ",
        apicall="VKAPI_ATTR ",
        protectFeature=False,
        protectProto="#ifndef",
        protectProtoStr="VK_NO_PROTOTYPES",
    )
    registry = Registry(generator, options)
    registry.loadElementTree(ElementTree.ElementTree(root))
    registry.apiGen()
    (folder / "vk_platform.h").write_text(_PLATFORM)
