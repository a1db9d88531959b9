"""Reading nothing: where the driver takes no null descriptors, as where it does."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import FAKES, Place, Setup, bare, serving

HERE = Path(__file__).parent
WAYS = ("set", "push", "template", "vertices")
METAL = next(each for each in FAKES if each.mode == "moltenvk")
SUPPLIED = (METAL, Setup("profile", ("--host-profile", "moltenvk")))
MARK = "1234"


@dataclass(frozen=True)
class Program:
    """The compiled program and its shaders, where clients see them."""

    path: Path
    compute: Path
    vertex: Path

    def words(self, place: Place, way: str) -> list[str]:
        return [*map(place.path, (self.path, self.compute, self.vertex)), way]


@contextlib.contextmanager
def compiled(place: Place) -> Iterator[Program]:
    """The program, where clients in `place` find it."""
    compiler = shutil.which("glslangValidator")
    assert compiler, "no glslangValidator; scripts/test installs it"
    with tempfile.TemporaryDirectory(dir=place.exchange, prefix="null-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for stage in ("comp", "vert"):
            command = [compiler, "-V", "--target-env", "vulkan1.2", str(HERE / f"null.{stage}")]
            _run([*command, "-o", str(folder / f"null.{stage}.spv")])
        flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
        source = str(HERE / "null_program.c")
        _run(["cc", *flags, source, "-o", str(folder / "null"), "-lvulkan"])
        yield Program(folder / "null", folder / "null.comp.spv", folder / "null.vert.spv")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def program(place: Place) -> Iterator[Program]:
    with compiled(place) as made:
        yield made


@pytest.fixture
def here(machine: Place) -> Iterator[Program]:
    """The program on this machine."""
    with compiled(machine) as made:
        yield made


def test_the_fake_driver_has_none(machine: Place, here: Program) -> None:
    done = bare(machine, setup=METAL).run(here.words(machine, "set"), check=False)
    assert done.stdout.split()[:2] == ["nullDescriptor", "0"]
    assert done.returncode != 0
    assert "broken rule VUID-VkWriteDescriptorSet-descriptorType-02994" in done.stderr


@pytest.mark.parametrize("setup", SUPPLIED, ids=lambda setup: setup.name)
def test_reads_what_the_bare_driver_reads(place: Place, program: Program, setup: Setup) -> None:
    with serving(place, setup) as server:
        for way in WAYS:
            words = program.words(place, way)
            expected = bare(place).run(words).stdout.split()
            assert expected[:2] == ["nullDescriptor", "1"]
            found = server.client(place).run(words).stdout.split()
            # A guest's driver may be older than the bare one, and have no null indices.
            assert found == expected[: len(found)]
            assert found[-1] == MARK, "the shader ran to its end"
        assert "error" not in server.printed().lower()


def test_not_when_nothing_is_to_be_supplied(machine: Place, here: Program) -> None:
    setup = Setup(METAL.name, ("--no-emulate",), METAL.environ, METAL.mode)
    with serving(machine, setup) as server:
        done = server.client(machine).run(here.words(machine, "set"), check=False)
    assert done.stdout.split()[:2] == ["nullDescriptor", "0"]
    assert done.returncode != 0
