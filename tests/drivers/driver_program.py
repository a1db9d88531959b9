"""Programs that use a driver, and what they are run with."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from fake_drivers import FakeDriver

from hesper.bench.client.shaders import TRANSFORM

Use = Callable[..., subprocess.CompletedProcess[str]]
"""Runs `use_driver`: `use(mode or driver, *words)`."""

_SOURCES = Path(__file__).parent / "programs"


def compile_program(folder: Path, name: str = "use_driver") -> Path:
    """Compile `programs/NAME.c` into `folder`."""
    built = folder / name
    words = ", ".join(map(hex, TRANSFORM))
    header = f"static const uint32_t transform[] = {{{words}}};\n"
    (folder / "transform.h").write_text(header)
    flags = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror")
    command = ["cc", *flags, f"-I{folder}", str(_SOURCES / f"{name}.c"), "-o", str(built)]
    command.append("-lvulkan")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


def environ(driver: FakeDriver) -> dict[str, str]:
    """Variables with which a program has that driver alone."""
    return {"VK_DRIVER_FILES": str(driver.manifest), "VK_LOADER_LAYERS_DISABLE": "~all~"}


def run(program: Path, driver: FakeDriver, *words: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end, however it ends; words with spaces are several."""
    return subprocess.run(
        [str(program), *" ".join(map(str, words)).split()],
        env=environ(driver),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
