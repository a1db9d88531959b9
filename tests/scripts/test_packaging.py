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

from hesper.sandbox.needs import table

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


def systemd_analyze(*words: str | Path, **environ: str) -> str:
    """What it says, with nothing to complain of."""
    assert shutil.which("systemd-analyze"), "the package systemd has it"
    found = subprocess.run(
        ["systemd-analyze", *words],
        env={"PATH": os.environ["PATH"], "SYSTEMD_COLORS": "0", **environ},
        check=False,
        capture_output=True,
        text=True,
    )
    # Without tracefs it cannot know which calls the kernel has, and says so.
    said = [line for line in found.stderr.splitlines() if not line.startswith("# Not showing")]
    assert (found.returncode, said) == (0, []), found.stdout
    return found.stdout


@pytest.fixture
def system_units(tmp_path: Path) -> list[Path]:
    """The units for a whole machine, with a program that is there."""
    units = []
    for file in sorted((PACKAGING / "systemd/system").iterdir()):
        text = file.read_text().replace("/usr/local/bin/hesper", "/bin/true")
        units.append(tmp_path / file.name)
        units[-1].write_text(text)
    return units


def test_systemd_finds_nothing_wrong_with_a_machines_units(system_units: list[Path]) -> None:
    names = {"hesper.service", "hesper.socket", "hesper-gold.slice", "hesper-gold.socket"}
    assert {unit.name for unit in system_units} == names
    assert systemd_analyze("verify", *system_units) == ""


def test_a_machines_service_is_hardened(system_units: list[Path]) -> None:
    """As systemd counts it, from 0 (all is closed) to 10; without what Hesper has to be able to."""
    (service,) = (unit for unit in system_units if unit.name == "hesper.service")
    said = systemd_analyze("security", "--offline=true", "--no-pager", "--threshold=31", service)
    assert "Overall exposure level for hesper.service" in said


def calls_of(group: str) -> set[str]:
    """System calls of one of systemd's groups, and of those in it."""
    found = set()
    for line in systemd_analyze("syscall-filter", group).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= calls_of(word)
        elif not word.startswith("#"):
            found.add(word)
    return found


def test_a_machines_service_may_make_the_calls_that_workers_make(system_units: list[Path]) -> None:
    """And those with which they are confined."""
    (service,) = (unit for unit in system_units if unit.name == "hesper.service")
    lines = service.read_text().splitlines()
    words = [line.split("=", 1)[1] for line in lines if line.startswith("SystemCallFilter=")]
    allowed = set()
    for word in " ".join(words).split():
        allowed |= calls_of(word) if word.startswith("@") else {word}
    calls = {name for names in table().calls.values() for name in names}
    ours = {"unshare", "mount", "seccomp", "clone", "pidfd_open", "pidfd_send_signal", "setpgid"}
    ours |= {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "capset"}
    # A call that is newer than this systemd is in none of its groups.
    assert (calls | ours) & calls_of("@known") <= allowed


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """Names, values, and that the service's program is there."""
    program = tmp_path / ".local/bin/hesper"
    program.parent.mkdir(parents=True)
    shutil.copy("/bin/true", program)
    units = [shutil.copy(file, tmp_path) for file in (PACKAGING / "systemd/user").iterdir()]
    assert len(units) == 2
    where = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert systemd_analyze("--user", "verify", *units, **where) == ""


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
