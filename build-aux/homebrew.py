"""Write the Homebrew formula of a source distribution: packaging/homebrew/hesper.rb.in, filled in.

    build-aux/homebrew.py SDIST [--url URL] >hesper.rb

The formula installs what `hesper[vm]` needs on macOS in the versions of constraints.txt, from
sources; uv knows where these are.  What Homebrew has itself, and builds better, is left to it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.markers import Marker

ROOT = Path(__file__).parent.parent
EXTRA = "vm"
OF_HOMEBREW = {"cffi", "cryptography", "numpy", "pillow", "pycparser"}
"""Its formulae of these names, or what they bring along."""
MAC = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "arm64",
    "platform_python_implementation": "CPython",
    "platform_system": "Darwin",
    "python_full_version": "3.13.0",
    "python_version": "3.13",
    "sys_platform": "darwin",
}


def lock() -> dict[str, Any]:
    """What uv finds for this project: everything that any extra of it needs, and where that is."""
    lines = (ROOT / "build-aux/constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    project = re.sub(
        r"^\[dependency-groups\]\n.*?(?=^\[)",
        "",
        (ROOT / "pyproject.toml").read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )
    with tempfile.TemporaryDirectory() as folder:
        text = f"{project}\n[tool.uv]\nconstraint-dependencies = {json.dumps(pins)}\n"
        (Path(folder) / "pyproject.toml").write_text(text)
        subprocess.run(["uv", "lock", "--quiet", "--project", folder], check=True)
        return tomllib.loads((Path(folder) / "uv.lock").read_text())


def resources(locked: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, address and digest of each source that the formula installs, by name.

    Raises `ValueError` for what has no sources.
    """
    packages = {package["name"]: package for package in locked["package"]}
    project = packages["hesper"]
    waiting = [*project["dependencies"], *project["optional-dependencies"][EXTRA]]
    needed: set[str] = set()
    while waiting:
        dependency = waiting.pop()
        name = dependency["name"]
        if name in needed or name in OF_HOMEBREW:
            continue
        if "marker" in dependency and not Marker(dependency["marker"]).evaluate(MAC):
            continue
        needed.add(name)
        waiting += packages[name].get("dependencies", [])
        for extra in dependency.get("extra", []):
            waiting += packages[name].get("optional-dependencies", {}).get(extra, [])
    for name in sorted(needed - {"hesper"}):
        source = packages[name].get("sdist")
        if source is None:
            raise ValueError(f"{name} {packages[name]['version']} has no sources")
        address = source.get("url") or Path(source["path"]).absolute().as_uri()
        yield name, address, source["hash"].removeprefix("sha256:")


def formula(sdist: Path, url: str, locked: dict[str, Any]) -> str:
    """The formula for `sdist`, which lies at `url`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    blocks = [
        f'  resource "{name}" do\n    url "{address}"\n    sha256 "{digest}"\n  end\n'
        for name, address, digest in resources(locked)
    ]
    text = (ROOT / "packaging/homebrew/hesper.rb.in").read_text()
    values = {
        "DESCRIPTION": project["description"],
        "URL": url,
        "VERSION": project["version"],
        "SHA256": hashlib.sha256(sdist.read_bytes()).hexdigest(),
        "RESOURCES": "\n".join(blocks),
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def main() -> None:
    """Print the formula."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sdist", type=Path)
    parser.add_argument("--url", help="where users will find it; default: the file itself")
    arguments = parser.parse_args()
    sdist: Path = arguments.sdist.resolve()
    print(formula(sdist, arguments.url or sdist.as_uri(), lock()), end="")


if __name__ == "__main__":
    main()
