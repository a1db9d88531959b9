"""build-aux/check_wheel.py sees what would keep a wheel from being loaded on a Mac."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
Check = Callable[[bytes], list[str]]
SOURCE = """
extern int of_nobody(int);
extern void *malloc(unsigned long);
static volatile char page[{size}] = {{1}};
int module(void) {{ return {call} + (malloc(1) != 0) + page[3]; }}
"""


@pytest.fixture(scope="module")
def check_wheel() -> ModuleType:
    """The program."""
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / "build-aux/check_wheel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def problems_of(check_wheel: ModuleType) -> Check:
    """`problems` for arm64 and macOS 11, as a list."""

    def problems(content: bytes) -> list[str]:
        return list(check_wheel.problems(content, "arm64", [11, 0], check_wheel.allowed()))

    return problems


def build(folder: Path, target: str = "aarch64-macos.11.0", call: str = "0") -> bytes:
    """A module of one function for `target`, compiled as modules of wheels are."""
    source = folder / "module.c"
    source.write_text(SOURCE.format(size=40000, call=call))
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-O2"]
    command += ["-Wl,-undefined,dynamic_lookup", "-o", str(folder / "module.so"), str(source)]
    subprocess.run(command, check=True, cwd=folder)
    return (folder / "module.so").read_bytes()


def test_nothing_is_wrong_with_a_good_module(problems_of: Check, tmp_path: Path) -> None:
    """Right processor, release, libraries, symbols and signature."""
    assert problems_of(build(tmp_path)) == []


@pytest.mark.parametrize(
    ("target", "call", "problem"),
    [
        ("aarch64-macos.11.0", "of_nobody(1)", "wants _of_nobody"),
        ("x86_64-macos.11.0", "0", "for X86_64"),
        ("aarch64-macos.14.0", "0", "for macOS [14, 0, 0]"),
    ],
)
def test_each_fault_is_named(
    problems_of: Check, tmp_path: Path, target: str, call: str, problem: str
) -> None:
    """What is not allowed, and what is for another Mac."""
    assert problem in problems_of(build(tmp_path, target, call))


def test_what_was_changed_after_it_was_signed_is_found(problems_of: Check, tmp_path: Path) -> None:
    """Apple Silicon ends a process that runs such a page."""
    content = bytearray(build(tmp_path))
    content[20000] ^= 1
    (problem,) = problems_of(bytes(content))
    assert problem.endswith("is not what was signed")


def test_objects_want_what_there_is_or_what_others_define(
    check_wheel: ModuleType, tmp_path: Path
) -> None:
    def compiled(name: str, text: str) -> Path:
        source = tmp_path / f"{name}.c"
        source.write_text(text)
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-macos", "-O2"]
        subprocess.run([*command, "-c", str(source)], check=True, cwd=tmp_path)
        return tmp_path / f"{name}.o"

    declared = "int of_nobody(int), of_the_system(int);"
    caller = compiled("caller", f"{declared} int f(void) {{ return of_nobody(of_the_system(1)); }}")
    other = compiled("other", "int of_nobody(int number) { return number; }")
    wanted, known = check_wheel.wanted_by_objects, {"_of_the_system"}
    assert list(wanted([caller, other], known)) == []
    assert list(wanted([caller], known)) == ["caller.o: wants _of_nobody"]
    assert list(wanted([caller, other], set())) == ["caller.o: wants _of_the_system"]
