"""What becomes of the process that workers are forked from where there are no descriptors."""

from __future__ import annotations

import errno
import os
import socket
from typing import NoReturn

import pytest

from hesper.isolation.launch import Template


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
    template.close()
