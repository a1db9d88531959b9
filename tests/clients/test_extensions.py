"""Devices with each extension that Mesa offers its programs, those it has of its own among them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from servers import Client, Place, Setup, serving


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`extensions.c`, compiled."""
    made = tmp_path_factory.mktemp("program") / "extensions"
    source = Path(__file__).with_name("extensions.c")
    subprocess.run(["cc", "-O1", "-o", made, source, "-lvulkan"], check=True)
    return made


def results(client: Client, program: Path) -> dict[str, int]:
    """VkResult of vkCreateDevice by extension."""
    copy = client.place.exchange / f"{program.parent.name}-extensions"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    try:
        done = client.run([client.place.path(copy)])
    finally:
        copy.unlink()
    pairs = (line.split() for line in done.stdout.splitlines())
    return {name: int(result) for name, result in pairs}


def test_every_offered_extension_can_be_enabled_alone(
    place: Place, setup: Setup, program: Path
) -> None:
    with serving(place, setup) as server:
        found = results(server.client(place), program)
    assert {"VK_KHR_swapchain", "VK_KHR_incremental_present", "all"} <= found.keys()
    assert {name: result for name, result in found.items() if result} == {}
