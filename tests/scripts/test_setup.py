"""scripts/lib.sh: when Hesper is built, and when what is there will do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "scripts" / "lib.sh"
SETUP = """
. "$1"
venv=$2
source_digest() { printf '%s' "$DIGEST"; }
quietly() { :; }
ensure_hesper
summary
"""
BUILT, UP_TO_DATE = "installed Hesper into", "up to date"
Ensure = Callable[..., str]


@pytest.fixture
def ensure(tmp_path: Path) -> Ensure:
    """Set Hesper up, with everything but the decision left out; returns what is said."""
    for name in ("cat", "dirname"):
        tool = shutil.which(name)
        assert tool is not None
        (tmp_path / name).symlink_to(tool)
    npm = tmp_path / "npm"

    def run(*, digest: str = "one", with_npm: bool) -> str:
        npm.unlink(missing_ok=True)
        if with_npm:
            npm.symlink_to("/bin/true")
        environ = {"PATH": str(tmp_path), "DIGEST": digest}
        return subprocess.run(
            ["/bin/bash", "-c", SETUP, "bash", LIBRARY, tmp_path],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    return run


@pytest.mark.parametrize("with_npm", [False, True])
def test_it_is_built_once(ensure: Ensure, with_npm: bool) -> None:
    assert BUILT in ensure(with_npm=with_npm)
    assert UP_TO_DATE in ensure(with_npm=with_npm)
    assert BUILT in ensure(digest="other", with_npm=with_npm)


def test_the_web_page_comes_with_npm(ensure: Ensure) -> None:
    assert "without the web page" in ensure(with_npm=False)
    assert "with the web page" in ensure(with_npm=True)
    # What has it may keep it.
    assert UP_TO_DATE in ensure(with_npm=False)
    assert UP_TO_DATE in ensure(with_npm=True)
