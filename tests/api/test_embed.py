"""examples/embed.py, with a real client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hesper

EMBED = Path(__file__).parents[2] / "examples" / "embed.py"


def embed(*arguments: str) -> subprocess.CompletedProcess[str]:
    package = Path(hesper.__file__).parents[1]
    return subprocess.run(
        [sys.executable, str(EMBED), *arguments],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.programs  # vulkaninfo
def test_two_clients_through_two_servers() -> None:
    done = embed("--driver", "lavapipe")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("driver: lvp\n")
    assert done.stdout.count("Virtio-GPU Venus (llvmpipe") == 2
    assert done.stderr.count("client connected") == 2
    assert done.stderr.count("client left") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--driver", "nobody's"], 'error: no driver answers to "nobody\'s"; installed: '),
        (["--driver", "lavapipe", "false"], ""),
    ],
)
def test_what_goes_wrong_is_told(arguments: list[str], says: str) -> None:
    done = embed(*arguments)
    assert done.returncode == 1
    assert says in done.stderr
