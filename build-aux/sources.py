#!/usr/bin/env python3
"""Print what to install, a line a folder: `folder|file,file,...`, for meson.build.

What `scripts/dev-build` has linked into the tree is not among it: the build installs that itself.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = {".py", ".pyi", ".typed", ".toml", ".html", ".css", ".js", ".svg", ".mjs"}

folders: dict[str, list[str]] = {}
for path in sorted((ROOT / "src" / "hesper").rglob("*")):
    if path.suffix not in KEPT and path.name != "py.typed":
        continue
    if path.is_symlink() or {"__pycache__", "compiler", "novnc"} & set(path.parts):
        continue
    folder = path.parent.relative_to(ROOT / "src").as_posix()
    folders.setdefault(folder, []).append(path.relative_to(ROOT).as_posix())
for folder, files in folders.items():
    print(f"{folder}|{','.join(files)}")
