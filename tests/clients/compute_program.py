"""A wgpu-py program that computes: prefix sums and matrix products, written as raw bytes.

python compute_program.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import wgpu

SIZE = 64

SHADER = """
@group(0) @binding(0) var<storage, read> left: array<f32>;
@group(0) @binding(1) var<storage, read> right: array<f32>;
@group(0) @binding(2) var<storage, read_write> product: array<f32>;
var<workgroup> row: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  row[local.x] = left[group.x * 64u + local.x];
  workgroupBarrier();
  var sum = 0.0;
  for (var k = 0u; k < 64u; k++) { sum += row[k] * right[k * 64u + local.x]; }
  product[group.x * 64u + local.x] = sum;
}
"""


def main(out: Path) -> None:
    """Multiply two matrices thirty times over, the product being the next left side."""
    adapter = wgpu.gpu.request_adapter_sync(power_preference="high-performance")
    device = adapter.request_device_sync()
    values = np.random.default_rng(7).uniform(-0.2, 0.2, (2, SIZE, SIZE)).astype(np.float32)
    usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC
    ping = device.create_buffer_with_data(data=values[0], usage=usage)
    right = device.create_buffer_with_data(data=values[1], usage=usage)
    pong = device.create_buffer(size=values[0].nbytes, usage=usage)
    pipeline = device.create_compute_pipeline(
        layout=wgpu.AutoLayoutMode.auto,
        compute={"module": device.create_shader_module(code=SHADER), "entry_point": "main"},
    )
    encoder = device.create_command_encoder()
    for _ in range(30):
        group = device.create_bind_group(
            layout=pipeline.get_bind_group_layout(0),
            entries=[
                {"binding": index, "resource": {"buffer": buffer}}
                for index, buffer in enumerate((ping, right, pong))
            ],
        )
        work = encoder.begin_compute_pass()
        work.set_pipeline(pipeline)
        work.set_bind_group(0, group)
        work.dispatch_workgroups(SIZE)
        work.end()
        ping, pong = pong, ping
    device.queue.submit([encoder.finish()])
    out.write_bytes(bytes(device.queue.read_buffer(ping)))
    print(adapter.info["device"])


main(Path(sys.argv[1]))
