"""wgpu-py programs through Hesper: their results are the bare driver's, byte by byte."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from servers import Client, Place, Setup, bare, serving

COMPUTE = Path(__file__).with_name("compute_program.py")
ENVIRON = {"WGPU_BACKEND_TYPE": "Vulkan", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
VENUS = "Virtio-GPU Venus"


def draw(client: Client, program: Path, out: Path) -> tuple[str, np.ndarray]:
    """Run the example picture; the device's name and the pixels."""
    arguments = ["--width", "320", "--height", "240", "--out", str(out), "--json"]
    done = client.run([sys.executable, str(program), *arguments], environ=ENVIRON)
    facts = json.loads(done.stdout.splitlines()[-1])
    return facts["device"], np.asarray(Image.open(out))


def compute(client: Client, out: Path) -> tuple[str, bytes]:
    """Run the computing program; the device's name and the bytes."""
    done = client.run([sys.executable, str(COMPUTE), str(out)], environ=ENVIRON)
    return done.stdout.splitlines()[-1], out.read_bytes()


def test_draws_the_same(machine: Place, setup: Setup, examples: Path, tmp_path: Path) -> None:
    program = examples / "picture.py"
    name, expected = draw(bare(machine, setup=setup), program, tmp_path / "bare.png")
    assert expected.std() > 20, "the picture shows something"
    with serving(machine, setup) as server:
        device, picture = draw(server.client(machine), program, tmp_path / "hesper.png")
    assert device == f"{VENUS} ({name})"
    assert np.array_equal(picture, expected)


def test_computes_the_same(machine: Place, setup: Setup, tmp_path: Path) -> None:
    name, expected = compute(bare(machine, setup=setup), tmp_path / "bare")
    assert len(set(expected)) > 100, "the result is not constant"
    with serving(machine, setup) as server:
        device, result = compute(server.client(machine), tmp_path / "hesper")
    assert device == f"{VENUS} ({name})"
    assert result == expected
