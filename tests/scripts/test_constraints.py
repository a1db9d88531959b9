"""All that pip installs for Hesper has one version, which stands in build-aux/constraints.txt."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
GROUPS = ("build", "constraints", "demo", "fuzz", "lint", "test", "wheels")
"""What `scripts/test` installs."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Versions by name, of those that count on this system."""
    lines = (ROOT / "build-aux/constraints.txt").read_text().splitlines()
    found: dict[str, str] = {}
    for requirement in (Requirement(line) for line in lines if not line.startswith("#")):
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        if requirement.marker is None or requirement.marker.evaluate():
            assert canonicalize_name(requirement.name) not in found
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def applying(lines: Iterable[str], extras: Iterable[str] = ()) -> Iterable[Requirement]:
    """The requirements that count on this system."""
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def test_all_that_is_installed_is_pinned(project: dict[str, Any], pins: dict[str, str]) -> None:
    lines = [*project["project"]["dependencies"], "hesper[all]"]
    for group in GROUPS:
        lines += project["dependency-groups"][group]
    waiting = list(applying(lines))
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        if key[0] == "hesper":
            # Not what is installed says: that may be older.
            for extra in requirement.extras:
                waiting += applying(project["project"]["optional-dependencies"][extra])
            continue
        installed = distribution(requirement.name)
        assert pins.get(key[0]) == installed.version, key[0]
        waiting += applying(installed.requires or [], requirement.extras)
    assert len(seen) > 40


def test_what_is_pinned_is_allowed(project: dict[str, Any], pins: dict[str, str]) -> None:
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    for lines in (project["build-system"]["requires"], *extras.values(), *groups.values()):
        for requirement in applying(line for line in lines if not line.startswith("hesper[")):
            version = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement


def test_every_build_speaks_the_same_protocol(
    project: dict[str, Any], pins: dict[str, str]
) -> None:
    """The registry decides what the wire programs are."""
    wanted = f"vulkan-object=={pins['vulkan-object']}"
    assert wanted in project["build-system"]["requires"]
    assert wanted in project["dependency-groups"]["build"]
