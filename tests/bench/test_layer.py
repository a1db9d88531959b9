"""The layer that shows a driver as a guest sees it, with a stock program above it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from hesper.bench.layer import noting, showing
from hesper.host.drivers import choose_driver

SECONDS = 60.0


def vulkaninfo(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run it on lavapipe."""
    return subprocess.run(
        ["vulkaninfo"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, **choose_driver("lvp").environment, **variables},
    )


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lavapipe shows."""
    path = tmp_path_factory.mktemp("view") / "view"
    done = vulkaninfo(noting(path))
    assert done.returncode == 0, done.stderr
    return path


def test_a_view_says_what_the_driver_shows(view: Path) -> None:
    lines = view.read_text().splitlines()
    plain = vulkaninfo({}).stdout
    extensions = [line.split()[1] for line in lines if line.startswith("extension ")]
    assert "VK_EXT_external_memory_host" in extensions
    assert all(name in plain for name in extensions)
    assert "driver-name llvmpipe" in lines
    kinds = re.findall(r"^\tmemoryTypes\[", plain, re.MULTILINE)
    assert len([line for line in lines if line.startswith("memory ")]) == len(kinds)


def test_no_more_is_shown_than_a_view_says(view: Path, tmp_path: Path) -> None:
    lines = view.read_text().splitlines()
    less = tmp_path / "less"
    lines.remove("extension VK_EXT_external_memory_host")
    changed = [re.sub(r"^memory .*", "memory 1", line) for line in lines]
    changed = [re.sub(r"^driver-name .*", "driver-name other", line) for line in changed]
    less.write_text("\n".join(changed) + "\n")
    done = vulkaninfo(showing(less))
    assert done.returncode == 0, done.stderr
    assert "VK_EXT_external_memory_host" not in done.stdout
    assert "MEMORY_PROPERTY_HOST_VISIBLE_BIT" not in done.stdout
    assert re.search(r"driverName\s+= other", done.stdout)


def test_a_whole_view_changes_nothing(view: Path) -> None:
    def about_the_device(text: str) -> str:
        about = text[text.index("Device Properties and Extensions") :]
        return re.sub(r"(budget|usage)( +)= [1-9].*", r"\1\2= some", about)

    shown = vulkaninfo(showing(view)).stdout
    assert about_the_device(shown) == about_the_device(vulkaninfo({}).stdout)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot read"), ("extension\n", "no line of a view: extension")]
)
def test_a_bad_view_ends_the_program(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "view"
    if text is not None:
        path.write_text(text)
    done = vulkaninfo(showing(path))
    assert done.returncode == 1
    assert f"guest_view: {message}" in done.stderr
