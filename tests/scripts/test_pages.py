"""What the documentation takes from the sources is up to date, and says everything once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import hesper
from hesper import errors
from hesper.cli import commands

ROOT = Path(__file__).parents[2]


def pages(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "build-aux/pages.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_they_are_up_to_date() -> None:
    done = pages(ROOT, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_not_is_found_and_written(tmp_path: Path) -> None:
    for name in ("build-aux", "docs", "src/hesper"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "novnc", "pictures")
        )
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "src/hesper/cli/new_thing.py").write_text('"""Do what is new."""\n')
    limits = tmp_path / "src/hesper/limits.py"
    limits.write_text(limits.read_text().replace("Live Vulkan objects.", "Objects that live."))
    done = pages(tmp_path, "--check")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{name} is not up to date: run build-aux/pages.py" for name in ("docs/api.md", "README.md")
    ]
    assert pages(tmp_path).returncode == 0
    assert "| `hesper new-thing` | Do what is new. |" in (tmp_path / "README.md").read_text()
    assert "Objects that live." in (tmp_path / "docs/api.md").read_text()
    assert pages(tmp_path, "--check").returncode == 0


def test_readme_lists_every_command_once() -> None:
    text = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `hesper ([a-z-]+)` \| .+ \|$", text, re.MULTILINE)
    assert listed == commands()
    # Nor as a list of another kind.
    assert not re.search(r"^ +hesper [a-z]+ .*\n +hesper [a-z]+ .*\n +hesper", text, re.MULTILINE)


def test_the_api_page_has_every_name_and_error() -> None:
    text = (ROOT / "docs/api.md").read_text()
    for name in set(hesper.__all__) - {"protocol"}:
        assert f"\n### {name}\n" in text
    known = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert known == set(re.findall(r"^\| `(\w+)` \| is a ", text, re.MULTILINE))
    # No entry without a word about it.
    assert not re.findall(r"^- `\w+: [^`]*`$", text, re.MULTILINE)
