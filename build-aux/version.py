#!/usr/bin/env python3
"""Print the package's version, which stands in pyproject.toml."""

import tomllib
from pathlib import Path

with (Path(__file__).parent.parent / "pyproject.toml").open("rb") as file:
    print(tomllib.load(file)["project"]["version"])
