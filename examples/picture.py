"""Render a picture with Vulkan, off screen, and write it as a PNG.

Run it on the bare driver, and through Hesper:

    python examples/picture.py --out bare.png
    hesper run -- python examples/picture.py --out hesper.png

Needs the packages wgpu, numpy and pillow.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("WGPU_BACKEND_TYPE", "Vulkan")

import numpy as np
import wgpu
from PIL import Image

BYTES_PER_PIXEL = 4


def render(
    device: wgpu.GPUDevice, width: int, height: int, samples: int
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Draw the scene; returns height x width x 4 bytes of RGBA."""
    shader = device.create_shader_module(code=Path(__file__).with_name("scene.wgsl").read_text())
    target = device.create_texture(
        size=(width, height, 1),
        format=wgpu.TextureFormat.rgba8unorm,
        usage=wgpu.TextureUsage.RENDER_ATTACHMENT | wgpu.TextureUsage.COPY_SRC,
    )
    view = np.array([width, height, 0.35, samples], dtype=np.float32)
    uniform = device.create_buffer_with_data(data=view, usage=wgpu.BufferUsage.UNIFORM)
    pipeline = device.create_render_pipeline(
        layout=wgpu.AutoLayoutMode.auto,
        vertex={"module": shader, "entry_point": "vertex"},
        fragment={
            "module": shader,
            "entry_point": "fragment",
            "targets": [{"format": wgpu.TextureFormat.rgba8unorm}],
        },
    )
    group = device.create_bind_group(
        layout=pipeline.get_bind_group_layout(0),
        entries=[{"binding": 0, "resource": {"buffer": uniform}}],
    )
    encoder = device.create_command_encoder()
    drawing = encoder.begin_render_pass(
        color_attachments=[{"view": target.create_view(), "load_op": "clear", "store_op": "store"}]
    )
    drawing.set_pipeline(pipeline)
    drawing.set_bind_group(0, group)
    drawing.draw(3)
    drawing.end()
    device.queue.submit([encoder.finish()])
    data = device.queue.read_texture(
        {"texture": target},
        {"bytes_per_row": width * BYTES_PER_PIXEL, "rows_per_image": height},
        (width, height, 1),
    )
    return np.frombuffer(data, np.uint8).reshape(height, width, BYTES_PER_PIXEL)


def main() -> None:
    """Render, save, and say what has drawn it and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--width", type=int, default=800)
    parser.add_argument("--height", type=int, default=600)
    parser.add_argument("--samples", type=int, default=2, help="samples a pixel, in each direction")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    options = parser.parse_args()

    start = time.perf_counter()
    adapter = wgpu.gpu.request_adapter_sync(power_preference="high-performance")
    device = adapter.request_device_sync()
    ready = time.perf_counter()
    picture = render(device, options.width, options.height, options.samples)
    done = time.perf_counter()
    Image.fromarray(picture, "RGBA").convert("RGB").save(options.out)

    facts = {
        "device": adapter.info["device"],
        "setup_seconds": round(ready - start, 3),
        "render_seconds": round(done - ready, 3),
        "picture": str(options.out),
    }
    if options.json:
        print(json.dumps(facts))
    else:
        print(
            f"{facts['device']}: set up in {facts['setup_seconds']:.3f} s, "
            f"rendered in {facts['render_seconds']:.3f} s -> {facts['picture']}"
        )


if __name__ == "__main__":
    main()
