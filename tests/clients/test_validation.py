"""The validation layer on the host says nothing that it does not say of the bare run, too."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from screen import Screen
from servers import FAKES, SCENES, SETUPS, Client, Place, Setup, bare, serving
from validation import errors, layer

PLAIN = SETUPS[0]
COMPUTE = Path(__file__).with_name("compute_program.py")
ENVIRON = {"WGPU_BACKEND_TYPE": "Vulkan", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
EXPECTED = {
    # Mesa's swapchains in the guest make a pool for each queue family that can copy, whether or not
    # the program's device has queues of it (`wsi_swapchain_init` in src/vulkan/wsi/wsi_common.c).
    "VUID-vkCreateCommandPool-queueFamilyIndex-01937",
}
"""What cannot be avoided, with the reason."""

Program = Callable[[Client], None]


@pytest.fixture(params=["picture", "compute", "vkcube", "vulkaninfo"])
def program(
    request: pytest.FixtureRequest, examples: Path, tmp_path: Path, screen: Screen
) -> Program:
    """A program to run on a client."""
    picture = [sys.executable, str(examples / "picture.py"), "--out", str(tmp_path / "out.png")]
    x11 = {"DISPLAY": screen.display, "MESA_VK_WSI_DEBUG": "sw"}
    programs: dict[str, Program] = {
        "picture": lambda client: _run(client, [*picture, "--width", "160", "--height", "120"]),
        "compute": lambda client: _run(client, [sys.executable, str(COMPUTE), str(tmp_path / "o")]),
        "vkcube": lambda client: _run(client, ["vkcube", "--c", "30"], x11),
        "vulkaninfo": lambda client: _run(client, ["vulkaninfo"]),
    }
    return programs[request.param]


def _run(client: Client, argv: list[str], environ: dict[str, str] | None = None) -> None:
    client.run(argv, environ={**ENVIRON, **(environ or {})})


def test_nothing_new(machine: Place, setup: Setup, program: Program, tmp_path: Path) -> None:
    before, after = tmp_path / "bare", tmp_path / "hesper"
    program(bare(machine, layer(before, machine, log=True), setup=setup))
    with serving(machine, setup, layer(after, machine)) as server:
        program(server.client(machine))
    known = EXPECTED.union(errors((before / "log").read_text(errors="replace")))
    new = [message for name, message in errors(server.said).items() if name not in known]
    assert not new, "\n".join(new)


@pytest.mark.parametrize("setup", [PLAIN, *FAKES], ids=lambda setup: setup.name)
def test_nothing_new_of_vkmark(machine: Place, trixie: Place, setup: Setup, tmp_path: Path) -> None:
    """Bare vkmark runs in a root, with that root's layer; the server has ours."""
    scenes = [word for scene in SCENES for word in ("-b", f"{scene}:duration=0.2")]
    vkmark = ["vkmark", "--winsys", "headless", "-s", "400x300", *scenes]
    before, after = trixie.exchange / f"layer-{os.getpid()}", tmp_path / "hesper"
    try:
        bare(trixie, layer(before, trixie, log=True), setup=setup).run(vkmark)
        known = EXPECTED.union(errors((before / "log").read_text(errors="replace")))
    finally:
        shutil.rmtree(before)
    with serving(trixie, setup, layer(after, machine)) as server:
        server.client(trixie).run(vkmark)
    new = [message for name, message in errors(server.said).items() if name not in known]
    assert not new, "\n".join(new)
