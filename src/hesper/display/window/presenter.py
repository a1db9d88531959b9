"""Drawing a picture in a window: a texture, a swapchain (Vulkan) or layer (Metal), one triangle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import wgpu
from rendercanvas.glfw import get_glfw_present_info  # type: ignore[import-untyped]

from hesper.display.geometry import Rect, Size

if TYPE_CHECKING:
    from hesper.display.frame import Picture

BORDER = (0.059, 0.071, 0.094, 1.0)

SHADER = """
@group(0) @binding(0) var picture: texture_2d<f32>;
@group(0) @binding(1) var smooth_sampler: sampler;

struct Corner {
    @builtin(position) position: vec4f,
    @location(0) uv: vec2f,
};

@vertex
fn corner(@builtin(vertex_index) index: u32) -> Corner {
    // One triangle that covers the viewport: (0, 0), (2, 0), (0, 2).
    let uv = vec2f(f32(index & 1u), f32(index >> 1u)) * 2.0;
    return Corner(vec4f(uv.x * 2.0 - 1.0, 1.0 - uv.y * 2.0, 0.0, 1.0), uv);
}

@fragment
fn colour(in: Corner) -> @location(0) vec4f {
    return vec4f(textureSample(picture, smooth_sampler, in.uv).rgb, 1.0);
}
"""


class Presenter:
    """Shows pictures in one GLFW window.  On the thread that handles the window's events."""

    def __init__(self, window: Any) -> None:
        """Set the GPU up for `window`.  Raises wgpu's errors when there is none it can use."""
        self._context = wgpu.gpu.get_canvas_context(get_glfw_present_info(window))
        adapter = wgpu.gpu.request_adapter_sync(power_preference="low-power")
        self._device = adapter.request_device_sync()
        # The guest's colours are meant for the screen as they are: no conversion from linear.
        self._format = self._context.get_preferred_format(adapter).removesuffix("-srgb")
        self._context.configure(device=self._device, format=self._format)
        shader = self._device.create_shader_module(code=SHADER)
        self._pipeline = self._device.create_render_pipeline(
            layout="auto",
            vertex={"module": shader, "entry_point": "corner"},
            primitive={"topology": "triangle-list"},
            fragment={
                "module": shader,
                "entry_point": "colour",
                "targets": [{"format": self._format}],
            },
        )
        self._sampler = self._device.create_sampler(mag_filter="linear", min_filter="linear")
        self._texture: Any = None
        self._bindings: Any = None
        self._size = Size(0, 0)

    def upload(self, picture: Picture) -> None:
        """Copy what has changed to the GPU."""
        frame = picture.frame
        changed = picture.changed
        if frame.size != self._size:
            self._make_texture(frame.size)
            changed = [Rect(0, 0, *frame.size)]
        for rect in changed:
            self._device.queue.write_texture(
                {"texture": self._texture, "origin": (rect.x, rect.y, 0)},
                np.ascontiguousarray(frame.pixels[rect.slices]),
                {"bytes_per_row": rect.width * 4, "rows_per_image": rect.height},
                (rect.width, rect.height, 1),
            )

    def draw(self, framebuffer: Size) -> None:
        """Draw the texture into a window of `framebuffer` pixels, and present it."""
        self._context.set_physical_size(*framebuffer)
        view = self._context.get_current_texture().create_view()
        encoder = self._device.create_command_encoder()
        render = encoder.begin_render_pass(
            color_attachments=[
                {"view": view, "clear_value": BORDER, "load_op": "clear", "store_op": "store"}
            ]
        )
        if self._texture is not None:
            where = fit(self._size, framebuffer)
            render.set_viewport(*where, 0, 1)
            render.set_pipeline(self._pipeline)
            render.set_bind_group(0, self._bindings)
            render.draw(3)
        render.end()
        self._device.queue.submit([encoder.finish()])
        self._context.present()

    def _make_texture(self, size: Size) -> None:
        self._size = size
        self._texture = self._device.create_texture(
            size=(*size, 1),
            format="bgra8unorm",
            usage=wgpu.TextureUsage.TEXTURE_BINDING | wgpu.TextureUsage.COPY_DST,
        )
        self._bindings = self._device.create_bind_group(
            layout=self._pipeline.get_bind_group_layout(0),
            entries=[
                {"binding": 0, "resource": self._texture.create_view()},
                {"binding": 1, "resource": self._sampler},
            ],
        )


def fit(picture: Size, window: Size) -> Rect:
    """Return where a picture lies in a window: as large as fits, its shape kept, in the middle."""
    scale = min(window.width / picture.width, window.height / picture.height)
    width = max(1, min(window.width, round(picture.width * scale)))
    height = max(1, min(window.height, round(picture.height * scale)))
    return Rect((window.width - width) // 2, (window.height - height) // 2, width, height)
