"""The main job as README shows it: `hesper run`, and the two pictures side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from servers import FAKES, SETUPS, Setup, server_driver


@pytest.mark.parametrize("setup", [SETUPS[0], *FAKES], ids=lambda setup: setup.name)
def test_pictures_side_by_side(examples: Path, setup: Setup, tmp_path: Path) -> None:
    command = [sys.executable, str(examples / "compare.py"), "--folder", str(tmp_path)]
    command += ["--driver", str(server_driver(setup))]
    environ = {**os.environ, **setup.environ}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The pictures are the same." in done.stdout
    assert f"through Hesper  Virtio-GPU Venus ({setup.device('llvmpipe')}" in done.stdout
    bare, hesper = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("bare", "hesper"))
    sheet = np.asarray(Image.open(tmp_path / "side-by-side.png"))
    assert bare.shape == hesper.shape == (600, 800, 3)
    assert sheet.shape[1] > 2 * bare.shape[1]
