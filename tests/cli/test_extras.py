"""A plain installation brings what `serve` and `run` need; other commands say what they lack."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import hesper
from hesper.cli import EXTRAS, commands
from hesper.errors import MissingExtraError
from hesper.extras import needed

PACKAGE = Path(hesper.__file__).parent
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

WITHOUT = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

missing = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Nothing())
from hesper.cli import main
main()
""".replace("{missing}", "missing")
"""Runs `hesper` as if modules were not installed."""


def requirements(*extras: str) -> set[str]:
    """Names of what Hesper with those extras needs."""
    lines = list(PROJECT["dependencies"])
    waiting = list(extras)
    while waiting:
        for line in PROJECT["optional-dependencies"][waiting.pop()]:
            found = re.fullmatch(r"hesper\[(.*)\]", line)
            waiting += found[1].split(",") if found else []
            lines += [] if found else [line]
    return {canonicalize_name(re.split("[>=]", line)[0]) for line in lines}


def modules(names: set[str]) -> set[str]:
    """The top modules of distributions."""
    return {
        module
        for module, owners in packages_distributions().items()
        if names & {canonicalize_name(owner) for owner in owners}
    }


def hesper_without(missing: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, ",".join(sorted(missing)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", *commands()])
def test_every_command_needs_what_its_extra_brings(command: str) -> None:
    every, plain = modules(requirements("all")), modules(requirements())
    assert {"numpy", "PIL", "aiohttp", "prometheus_client", "qemu"} <= every
    words = [command, "--help"] if command else ["--help"]
    extra = EXTRAS.get(command)
    if extra is not None:
        done = hesper_without(every - plain, *words)
        assert done.returncode == 1
        assert re.fullmatch(
            rf"hesper: hesper {command} needs \w+, which is not installed:"
            rf" pip install 'hesper\[{extra}\]'\n",
            done.stderr,
        ), done.stderr
    there = modules(requirements(*([extra] if extra else [])))
    done = hesper_without(every - there, *words)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_an_unknown_command_is_no_reason_to_import_all() -> None:
    done = hesper_without(modules(requirements("all")) - modules(requirements()), "sevre")
    assert done.returncode == 2
    assert done.stderr.startswith("hesper: no command sevre; there are bench, cdi, doctor, ")


def test_all_that_is_imported_is_asked_for_and_the_other_way_round() -> None:
    statement = re.compile(r"^\s*(?:import|from)\s+([A-Za-z_]\w*)", re.MULTILINE)
    imported = {
        name
        for path in PACKAGE.rglob("*.py")
        # What writes the wire programs is the build's, and not installed.
        if "compiler" not in path.parts
        for name in statement.findall(path.read_text(encoding="utf-8"))
    }
    owners = packages_distributions()
    outside = {name for name in imported - set(sys.stdlib_module_names) if name in owners}
    outside -= {"hesper"}
    owned = {canonicalize_name(owner) for name in outside for owner in owners[name]}
    assert owned == requirements("all")


def test_a_mistake_of_ours_is_no_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, needed("this", "all"):
        import hesper.nothing  # type: ignore[import-not-found]  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
    says = r"this needs nothing_at_all, .*'hesper\[vm\]'"
    with pytest.raises(MissingExtraError, match=says), needed("this", "vm"):
        import nothing_at_all.part  # type: ignore[import-not-found]  # noqa: F401
