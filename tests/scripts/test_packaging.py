"""What `packaging/` gives to other systems' tools, as far as those can be asked here."""

from __future__ import annotations

import importlib.util
import json
import os
import plistlib
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


def load(name: str) -> ModuleType:
    """A program of build-aux, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"build-aux/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """Names, values, and that the service's program is there."""
    assert shutil.which("systemd-analyze"), "the package systemd has it"
    program = tmp_path / ".local/bin/hesper"
    program.parent.mkdir(parents=True)
    shutil.copy("/bin/true", program)
    units = [shutil.copy(file, tmp_path) for file in (PACKAGING / "systemd").iterdir()]
    assert len(units) == 2
    found = subprocess.run(
        ["systemd-analyze", "--user", "verify", *units],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_launchd_starts_hesper_in_the_users_own_folders(tmp_path: Path) -> None:
    """The agent's command is run as launchd would, with a program of ours for hesper."""
    agent = plistlib.loads((PACKAGING / "launchd/hesper.gpu.plist").read_bytes())
    assert agent["Label"] == "hesper.gpu"
    assert agent["Umask"] == 0o077
    assert "/opt/homebrew/bin" in agent["EnvironmentVariables"]["PATH"].split(":")
    program = tmp_path / "bin/hesper"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho the password\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    home = tmp_path / "a user's home"
    (home / "Library/Logs").mkdir(parents=True)
    subprocess.run(
        agent["ProgramArguments"],
        env={"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(home)},
        check=True,
        umask=agent["Umask"],
    )
    log = home / "Library/Logs/hesper.log"
    assert log.read_text().splitlines() == [
        "the password", "gpu", "--socket", f"{home}/Library/Caches/hesper/gpu"
    ]  # fmt: skip
    assert log.stat().st_mode & 0o077 == 0


# What uv writes, of which the formula takes some.
LOCKED: dict[str, Any] = {
    "package": [
        {
            "name": "hesper",
            "version": "0.1.0",
            "dependencies": [{"name": "plain"}, {"name": "numpy"}],
            "optional-dependencies": {
                "vm": [
                    {"name": "hesper", "extra": ["display"]},
                    {"name": "for-linux", "marker": "sys_platform == 'linux'"},
                ],
                "display": [{"name": "deep", "marker": "python_full_version >= '3.11'"}],
                "window": [{"name": "unasked"}],
            },
        },
        *(
            {
                "name": name,
                "version": "1.0",
                "dependencies": [{"name": "plain"}],
                "sdist": {
                    "url": f"https://example.org/{name}-1.0.tar.gz",
                    "hash": "sha256:" + "ab" * 32,
                },
            }
            for name in ("plain", "deep", "numpy", "for-linux", "unasked")
        ),
    ]
}  # fmt: skip

# Enough of Homebrew to read a formula with.
BREW = """
require "json"
module Language; module Python; module Virtualenv; end; end; end
class Formula
  def self.seen = @seen ||= { "depends_on" => [], "resources" => {} }
  %w[desc url version sha256 license].each do |name|
    define_singleton_method(name) { |value| (@open || seen)[name] = value }
  end
  def self.depends_on(name) = seen["depends_on"] << name
  def self.resource(name)
    @open = seen["resources"][name] = {}
    yield
    @open = nil
  end
  def self.service = nil
  def self.test = nil
end
load ARGV[0]
raise "no install" unless Hesper.method_defined?(:install)
puts JSON.generate(Hesper.seen)
"""


def test_ruby_reads_homebrews_formula(tmp_path: Path) -> None:
    """It has what the extra needs on a Mac, each with its place and digest, and no more."""
    homebrew = load("homebrew")
    sdist = tmp_path / "hesper-0.1.0.tar.gz"
    sdist.write_bytes(b"sources")
    url = "https://example.org/hesper-0.1.0.tar.gz"
    (tmp_path / "hesper.rb").write_text(homebrew.formula(sdist, url, LOCKED))
    (tmp_path / "brew.rb").write_text(BREW)
    ruby = ["ruby", "-w", str(tmp_path / "brew.rb"), str(tmp_path / "hesper.rb")]
    read = subprocess.run(ruby, check=True, capture_output=True, text=True)
    assert read.stderr == ""
    seen = json.loads(read.stdout)
    assert set(seen["resources"]) == {"plain", "deep"}
    for name, resource in seen["resources"].items():
        assert resource["url"] == f"https://example.org/{name}-1.0.tar.gz"
        assert resource["sha256"] == "ab" * 32
    assert seen["url"] == url
    assert len(seen["sha256"]) == 64
    assert {"molten-vk", "qemu", "vulkan-loader", "numpy"} <= set(seen["depends_on"])


def test_a_package_without_sources_is_named(tmp_path: Path) -> None:
    """A formula that cannot be installed is worse than none."""
    homebrew = load("homebrew")
    locked = json.loads(json.dumps(LOCKED))
    del locked["package"][1]["sdist"]
    sdist = tmp_path / "hesper.tar.gz"
    sdist.write_bytes(b"")
    with pytest.raises(ValueError, match=r"plain 1\.0 has no sources"):
        homebrew.formula(sdist, "", locked)
