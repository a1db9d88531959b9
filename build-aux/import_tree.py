#!/usr/bin/env python3
"""Write the package as import-linter can read it: what compiled modules import, too.

    build-aux/import_tree.py FOLDER        makes FOLDER/hesper anew

Of a `.pyx` or `.pxd` only its imports are kept, a `cimport` as an `import`: it binds rooms as well.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parents[1] / "src" / "hesper"
_STATEMENT = re.compile(
    r"^[ \t]*(?P<from>from[ \t]+\S+[ \t]+)?c?import\b(?P<names>[ \t]*\([^)]*\)|.*)$", re.MULTILINE
)


def imports(source: str) -> str:
    """The imports of Cython code, as Python."""
    found = _STATEMENT.finditer(source)
    return "".join(f"{one['from'] or ''}import{one['names']}\n" for one in found)


def write(folder: Path) -> None:
    """Make `folder`/hesper anew."""
    tree = folder / "hesper"
    shutil.rmtree(tree, ignore_errors=True)
    for source in sorted(_PACKAGE.rglob("*.p*")):
        target = tree / source.relative_to(_PACKAGE)
        if source.suffix == ".py":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        elif source.suffix in {".pyx", ".pxd"}:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.with_suffix(".py").open("a", encoding="utf-8") as module:
                module.write(imports(source.read_text(encoding="utf-8")))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
