"""The machine's own Venus driver in a folder for containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hesper.api.client import find_venus
from hesper.containers.driver_set import (
    DRIVER_FOLDER,
    DriverSetError,
    is_of_glibc,
    load_set,
    make_set,
)


def test_the_driver_comes_with_all_that_it_needs(tmp_path: Path) -> None:
    made = make_set(find_venus(), tmp_path / "sets")
    assert load_set(Path(made.folder)) == made
    assert made.loader in {"libvulkan.so.1", ""}
    names = {made.driver, *made.libraries, made.loader} - {""}
    assert names | {"set.json"} == set(os.listdir(made.folder))
    for name in names:
        library = made.library(name)
        assert {each for each in library.needed if not is_of_glibc(each)} <= names
        assert library.search_path == (DRIVER_FOLDER if name == made.driver else "")
    # It can be opened, and its functions be resolved at once.
    script = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW)"
    subprocess.run([sys.executable, "-c", script, Path(made.folder, made.driver)], check=True)
    assert make_set(find_venus(), tmp_path / "sets") == made
    assert os.listdir(tmp_path / "sets") == [Path(made.folder).name], "nothing is left beside it"


def test_a_driver_that_cannot_be_given_is_named(tmp_path: Path) -> None:
    manifest = tmp_path / "virtio_icd.json"
    with pytest.raises(DriverSetError, match="no such file"):
        make_set(manifest, tmp_path)
    (tmp_path / "lib.so").write_bytes(bytes(100))
    icd = {"library_path": "./lib.so", "api_version": "1.3.0"}
    manifest.write_text(json.dumps({"ICD": icd}))
    with pytest.raises(DriverSetError, match=r"cannot be opened: .*invalid ELF header"):
        make_set(manifest, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DriverSetError, match=r"name another folder \(--driver-folder\)"):
        make_set(find_venus(), tmp_path / "file")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"driver": 1}'])
def test_a_set_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(DriverSetError, match="run hesper cdi generate again"):
        load_set(tmp_path)
