"""OpenGL by zink, where the driver has what MoltenVK has: the pictures of the bare driver."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from screen import Screen
from servers import FAKES, Client, Place, Setup, bare, serving

SIDE = 256
METAL = next(each for each in FAKES if each.mode == "moltenvk")
BOTH = Setup("both", ("--host-profile", "moltenvk"), METAL.environ, METAL.mode)
"""The driver with MoltenVK's rules, with its features and limits besides."""
SUPPLIED = (METAL, BOTH)
LIKE_A_PROCESSOR = {"LIBGL_ALWAYS_SOFTWARE": "1"}
"""zink takes a processor's Vulkan only then, and nothing else."""
SCENES = (
    "build:use-vbo=false",
    "build:use-vbo=true",
    "texture:texture-filter=mipmap",
    "shading:shading=phong",
    "bump:bump-render=normals",
    "pulsar:light=true",
    "conditionals:fragment-steps=5:vertex-steps=5",
    "function:fragment-complexity=low:fragment-steps=5",
    "loop:fragment-steps=5:fragment-uniform=false:vertex-steps=5",
)
SECONDS = 300.0


@pytest.fixture
def program(place: Place) -> Iterator[Path]:
    """The program that draws, where clients in `place` find it."""
    with tempfile.TemporaryDirectory(dir=place.exchange, prefix="zink-") as folder:
        Path(folder).chmod(0o755)
        built = Path(folder) / "gl"
        source = str(Path(__file__).parent / "gl_program.c")
        flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
        command = ["cc", *flags, source, "-o", str(built), "-lEGL", "-lGLESv2", "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield built


def zink(environ: dict[str, str] | None = None) -> dict[str, str]:
    """What makes OpenGL zink's."""
    return {"MESA_LOADER_DRIVER_OVERRIDE": "zink", "LIBGL_KOPPER_DRI2": "1", **(environ or {})}


def draw(
    client: Client, screen: Screen, program: Path, environ: dict[str, str]
) -> tuple[str, NDArray[np.uint8]]:
    """What has drawn, and the picture."""
    picture, place = program.with_name("picture"), client.place
    command = [place.path(program), place.path(picture)]
    done = client.run(command, environ={**environ, "DISPLAY": screen.display})
    return done.stdout.strip(), np.fromfile(picture, np.uint8).reshape(SIDE, SIDE, 4)


@pytest.mark.parametrize("setup", SUPPLIED, ids=lambda setup: setup.name)
def test_the_picture_is_the_bare_drivers(
    place: Place, screen: Screen, program: Path, setup: Setup
) -> None:
    name, expected = draw(bare(place), screen, program, zink(LIKE_A_PROCESSOR))
    assert name.startswith("zink Vulkan")
    assert len(np.unique(expected.reshape(-1, 4), axis=0)) > 1000, "the cube has a texture"
    with serving(place, setup) as server:
        name, picture = draw(server.client(place), screen, program, zink())
        assert "error" not in server.printed().lower()
    assert re.match(r"zink Vulkan 1\.\d\(Virtio-GPU Venus", name), name
    assert np.array_equal(picture, expected)


@pytest.mark.parametrize("place", ["trixie"], indirect=True)
def test_newer_ones_want_null_descriptors(place: Place, screen: Screen, program: Path) -> None:
    setup = Setup(METAL.name, ("--no-emulate",), METAL.environ, METAL.mode)
    command = [place.path(program), place.path(program.with_name("picture"))]
    with serving(place, setup) as server:
        environ = {**zink(), "DISPLAY": screen.display}
        done = server.client(place).run(command, environ=environ, check=False)
    assert "zink" not in done.stdout
    assert "Zink requires the nullDescriptor feature" in done.stderr


def validated(client: Client, screen: Screen, environ: dict[str, str]) -> dict[str, str]:
    """What glmark2 says of what each scene has drawn, and what has drawn."""
    scenes = [word for scene in SCENES for word in ("-b", scene)]
    command = ["glmark2-es2", "--validate", *scenes]
    environ = {**environ, "DISPLAY": screen.display}
    done = client.run(command, environ=environ, timeout=SECONDS)
    said = re.findall(r"^\[(\w+)\] (\S+) Validation: (\w+)", done.stdout, re.MULTILINE)
    found = {f"{scene} {options}": result for scene, options, result in said}
    renderer = re.search(r"GL_RENDERER: +(.*)", done.stdout)
    assert renderer, done.stdout
    found["renderer"] = renderer[1]
    return found


@pytest.mark.parametrize("setup", SUPPLIED, ids=lambda setup: setup.name)
def test_scenes(machine: Place, screen: Screen, setup: Setup) -> None:
    expected = validated(bare(machine), screen, zink(LIKE_A_PROCESSOR))
    assert expected.pop("renderer").startswith("zink Vulkan")
    assert len(expected) == len(SCENES)
    assert "Success" in expected.values()
    with serving(machine, setup) as server:
        found = validated(server.client(machine), screen, zink())
        assert "error" not in server.printed().lower()
    assert "Virtio-GPU Venus" in found.pop("renderer")
    assert found == expected
