"""What a library may not do to the process that it is in stands in the command line alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hesper

PACKAGE = Path(hesper.__file__).parent

FORBIDDEN = {
    "signal.signal",
    "signal.set_wakeup_fd",
    "signal.pthread_sigmask",
    "signal.setitimer",
    "asyncio.loop.add_signal_handler",
    "threading.main_thread",
    "os.umask",
    "os.chdir",
    "os.putenv",
    "os.unsetenv",
    "os.environ.update",
    "os.environ.pop",
    "os.environ.setdefault",
    "os.environ.clear",
    "logging.basicConfig",
    "structlog.configure",
    "resource.setrlimit",
    "raise_descriptor_limit",
    "sys.setswitchinterval",
}

PROGRAMS = {
    "cli": "the command line is a program",
    "isolation/worker.py": "a worker's process",
    "isolation/template.py": "the process that workers are forked from",
    "isolation/driver.py": "called in a worker's process",
    "gpu/workers.py": "its `main` is the supervisor's process",
    "portable.py": "defines raise_descriptor_limit, and calls it nowhere",
}
"""Where it may stand, and why."""


def trespasses(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of what a source does and a library may not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in FORBIDDEN:
            yield node.lineno, name
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_signal_handler"):
            yield node.lineno, "add_signal_handler"
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if ast.unparse(target).startswith("os.environ"):
                yield target.lineno, "os.environ"


def is_program(name: str) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in PROGRAMS)


def test_a_library_leaves_the_process_alone() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not is_program(path.relative_to(PACKAGE).as_posix())
        for line, name in trespasses(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_every_exception_is_needed() -> None:
    for place in set(PROGRAMS) - {"portable.py"}:
        path = PACKAGE / place
        files = path.rglob("*.py") if path.is_dir() else [path]
        texts = [file.read_text(encoding="utf-8") for file in files]
        assert any(any(trespasses(text)) for text in texts), place


@pytest.mark.parametrize(
    "line",
    [
        "signal.signal(1, f)",
        "os.environ['A'] = 'b'",
        "del os.environ['A']",
        "os.environ |= {}",
        "os.umask(0)",
        "loop.add_signal_handler(1, f)",
    ],
)
def test_it_would_be_found(line: str) -> None:
    assert list(trespasses(line))


INTERNAL = {
    "AviFullError": "ends a video, which then is complete",
    "FetchError": "of the build",
    "ManifestError": "becomes a line of what was found",
    "RfbError": "ends a viewer's connection",
}
"""Exceptions that nobody meets outside of where they are from."""


def test_errors_that_users_meet_are_of_one_hierarchy() -> None:
    """In all that is above what serves guests, which tells them by other means."""
    below = {"gpu", "guest", "isolation", "kernel", "protocol", "vhost", "vtest"}
    strangers = {
        node.name
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in below
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and node.name != "HesperError"
        and any(ast.unparse(base) in {"Exception", "ValueError", "OSError"} for base in node.bases)
        and not any("HesperError" in ast.unparse(base) for base in node.bases)
    }
    assert strangers == set(INTERNAL)
