"""What becomes of the process that workers are forked from where there are no descriptors."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from hesper.isolation import crew, launch, launching
from hesper.isolation.hearing import named_by_the_table
from hesper.isolation.launch import Template
from hesper.isolation.turns import Turns
from native import native


def test_a_template_is_given_up_where_its_workers_could_not_be_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(*_: object) -> NoReturn:
        raise BlockingIOError

    def none_left(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    template = Template("echo_service", "off")
    ours, theirs = socket.socketpair()
    with ours, theirs, monkeypatch.context() as patched:
        worker = template.launch(theirs, background=False)
        # Another thread takes the descriptor that was given up to hear.
        patched.setattr(socket, "recv_fds", nothing)
        patched.setattr(os, "open", none_left)
        assert not template.hear()
    assert worker.poll()
    assert worker.problem
    assert template.problem == "no descriptor to watch workers by: Too many open files"
    template.close()


@native
def test_a_template_that_cannot_start_is_tried_again_less_and_less(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 3

    def scarce(*arguments: Any) -> Template:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return Template(*arguments)

    caplog.set_level("INFO", "hesper")
    monkeypatch.setattr(launch, "Template", scarce)
    monkeypatch.setattr(launching, "Template", scarce)
    monkeypatch.setattr(launching, "TEMPLATE_BACKOFF", 0.001)
    turns = Turns()
    one = crew.Crew(turns, "echo_service", {}, "off")
    one.begin()
    forked = "workers are forked from a template again"
    try:
        for _ in range(10):
            if forked in caplog.messages:
                break
            turns.after(0.05, lambda: None)
            turns.turn()
    finally:
        one.end()
        turns.close()
    lines = [vars(record) for record in caplog.records]
    assert [line["fields"].get("next_attempt_in_seconds") for line in lines] == [
        0.001,
        0.002,
        0.004,
        None,
    ]
    assert lines[-1]["event"] == forked


@pytest.fixture
def library(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A library whose constructor is the test's."""
    source, made = tmp_path / "library.c", tmp_path / "library.so"
    source.write_text(f"#include <pthread.h>\n{request.param}\n")
    command = ["cc", "-shared", "-fPIC", "-pthread", "-o", str(made), str(source)]
    subprocess.run(command, check=True)
    return str(made)


def hear(template: Template) -> bool:
    """Hear what the template says next."""
    fd = template.fileno()
    assert fd is not None
    assert select.select([fd], [], [], 60.0)[0]
    return template.hear()


@native
@pytest.mark.parametrize("library", ["int nothing;"], indirect=True)
def test_workers_share_what_the_template_has_loaded(library: str) -> None:
    template = Template("echo_service", "off")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        template.preload(["/nowhere/at-all.so", library])
        worker = template.launch(theirs, background=False)
        assert hear(template)
        assert worker.pid
        assert library in Path(f"/proc/{worker.pid}/maps").read_text()
        worker.kill()
        worker.wait()
    template.close()


THREAD = """
static void *run(void *nothing) { for (;;) pthread_testcancel(); return nothing; }
__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    pthread_create(&thread, 0, run, 0);
}
"""


@pytest.mark.parametrize("library", [THREAD], indirect=True)
def test_a_template_that_has_got_threads_forks_no_more(library: str) -> None:
    template = Template("echo_service", "off")
    template.preload([library])
    while hear(template):
        pass
    template.close()


def test_a_worker_has_only_what_the_table_names_loaded_for_all() -> None:
    files = [
        "/usr/lib/libLLVM-15.so.1",
        "libLLVM-15.so.1",
        "/tmp/libc.so.6",
        "/usr/lib/libvulkan_lvp.so",
    ]
    assert named_by_the_table({"preload": files}) == [files[0], files[3]]
    assert named_by_the_table({}) == []


@pytest.mark.parametrize("options", [0, None, ["preload"], {"preload": "/x"}, {"preload": [1]}])
def test_options_that_are_none_are_refused(options: object) -> None:
    with pytest.raises(TypeError, match=r"no object|no list of files"):
        named_by_the_table(options)
