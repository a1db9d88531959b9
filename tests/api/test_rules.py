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
    "gc.freeze",
    "never_garbage",
}

PROGRAMS = {
    "cli": "the command line is a program",
    "isolation/worker.py": "a worker's process",
    "isolation/template.py": "the process that workers are forked from",
    "isolation/driver.py": "called in a worker's process",
    "display/video/confined.py": "a program that becomes an encoder",
    "gpu/workers.py": "its `main` is the supervisor's process",
    "sandbox": "what workers' processes and programs call",
    "portable/processes.py": "defines raise_descriptor_limit, and calls it nowhere",
    "portable/machine.py": "defines never_garbage, and calls it nowhere",
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
    for place in set(PROGRAMS) - {"portable/processes.py"}:
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


LOUD = {
    "logging.getLogger",
    "print",
    "sys.stderr.write",
    "sys.stdout.write",
    "traceback.print_exc",
    "warnings.warn",
    *(f"logging.{level}" for level in ("debug", "info", "warning", "error", "exception", "log")),
}
"""What writes past the log, and so as much as a guest makes it write."""

OUTSPOKEN = {
    "bench": "a program",
    "cli": "a program",
    "display/web/fetch_novnc.py": "of the build",
    "host/describe.py": "a program that looks at a driver",
    "host/trial.py": "a program that tries a driver out",
    "protocol/compiler": "of the build",
    "vm/guest_clipboard.py": "a program in guests",
    "vm/process.py": "says why QEMU has not started",
}
"""Where it may stand, and why; none of them serves guests."""

TOPICS = {
    "cli": "what it is served with",
    "guest/context.py": "the kernel's notices, of which there are few",
}
"""Where the event of a log line may be no constant, and why."""


def loud(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of what a source writes past the log, or without a topic."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in LOUD or ast.unparse(node).endswith("sys.stderr)"):
            yield node.lineno, name
        is_line = name.endswith((".debug", ".info", ".warning", ".error", ".exception"))
        # Without any argument it is a future's `exception`.
        topic = node.args[0] if node.args else ast.Constant("")
        if is_line and not (isinstance(topic, ast.Constant) and isinstance(topic.value, str)):
            yield node.lineno, "topic"


@pytest.mark.slow
def test_what_a_guest_can_cause_is_written_by_the_log_alone() -> None:
    """All log lines have an allowance, by their topics: a topic that a guest can vary has none."""
    found = [
        f"{name}:{line}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if (name := path.relative_to(PACKAGE).as_posix()) not in {"log.py", "log_limiter.py"}
        for line, what in loud(path.read_text(encoding="utf-8"))
        if not name.startswith(tuple(TOPICS if what == "topic" else OUTSPOKEN))
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    ["print(1)", "print(1, file=sys.stderr)", "log.error(f'no {name}')", "log.of('a').info(x)"],
)
def test_a_loud_line_would_be_found(line: str) -> None:
    assert list(loud(line))


INTERNAL = {
    "AviFullError": "ends a video, which then is complete",
    "FetchError": "of the build",
    "LinkError": "ends a display of the VMM's",
    "ManifestError": "becomes a line of what was found",
    "QemuVncError": "ends what is seen of firmware, or heard of a guest, until the next time",
    "RfbError": "ends a viewer's connection",
    "SessionEndedError": "of a program in guests",
    "StreamError": "ends a video: its encoder has failed",
    "_Gone": "ends the watch over QEMU's monitor",
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
