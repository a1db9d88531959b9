"""What a worker can still do that a guest has taken over: each wall, and that it is ours."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from supervised import environment

from hesper.portable import architecture
from hesper.sandbox import landlock, seccomp
from hesper.sandbox.calls import call_name

HERE = Path(__file__).parent

CLOSED_FILES = (
    "read_passwd",
    "read_home",
    "list_home",
    "write_home",
    "write_tmp",
    "write_own_code",
    "read_environment_of_parent",
    "open_device",
)
"""What landlock refuses."""

DEADLY = {
    "signal_parent": "kill",
    "signal_all": "kill",
    "execute": "execve",
    "trace_parent": "ptrace",
    "read_parent": "process_vm_readv",
    "open_pidfd": "pidfd_open",
    "make_namespaces": "unshare",
    "mount": "mount",
    "become_root_of_another_place": "chroot",
    "load_bpf": "bpf",
    "open_perf_event": "perf_event_open",
    "open_userfaultfd": "userfaultfd",
    "set_up_io_uring": "io_uring_setup",
    "use_keys": "keyctl",
    "open_by_another_call": "openat2",
    "type_into_terminal": "ioctl",
    "signal_by_descriptor": "fcntl",
}
"""What ends the worker, and the call that it has died of."""

ERRORS = {
    "connect_tcp": "PermissionError",
    "connect_supervisor": "PermissionError",
    "connect_abstract": "PermissionError",
    "make_socket": "PermissionError",
    "share_huge_pages": "OSError(12",
    "map_huge_pages": "OSError(12",
    "fork": "PermissionError",
    "make_thread_apart": "PermissionError",
    "raise_limit": "ValueError",
    "starve_parent": "PermissionError(1",
    "pin_parent": "PermissionError(1",
    "put_parent_last": "PermissionError(1",
    "put_user_last": "PermissionError(1",
    "age_file": "PermissionError(1",
}
"""What fails."""

NOT_HERE = {"load_bpf", "type_into_terminal"}
"""What fails without a sandbox, too, as it is done there: for want of a program, of a terminal."""

Attempt = Callable[[str, str], dict[str, Any]]


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    """Has a worker try something."""
    (tmp_path / "secret").write_text("secret")

    def attempt(mode: str, name: str) -> dict[str, Any]:
        command = [sys.executable, str(HERE / "hostile.py"), mode, str(tmp_path), name]
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return outcome

    return attempt


def has_landlock() -> bool:
    try:
        return landlock.abi() > 0
    except OSError:
        return False


needs_seccomp = pytest.mark.skipif(bool(seccomp.obstacle()), reason=seccomp.obstacle())
needs_landlock = pytest.mark.skipif(not has_landlock(), reason="this kernel has no landlock")


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_worker_does_its_work(attempt: Attempt, mode: str) -> None:
    assert attempt(mode, "nothing") == {"did": True, "error": False, "signal": 0, "said": ""}


@needs_landlock
@pytest.mark.parametrize("name", CLOSED_FILES)
def test_files_are_closed(attempt: Attempt, name: str) -> None:
    outcome = attempt("on", name)
    assert outcome["error"], outcome
    assert outcome["said"].startswith("PermissionError"), outcome


@needs_seccomp
@pytest.mark.parametrize("name", DEADLY)
def test_a_forbidden_call_ends_it_and_is_named(attempt: Attempt, name: str) -> None:
    outcome = attempt("on", name)
    assert outcome["signal"] == 31, outcome  # SIGSYS
    said = json.loads(outcome["said"])
    assert call_name(said["call"], architecture()).split()[0] == DEADLY[name]


@needs_seccomp
@pytest.mark.parametrize("name", ERRORS)
def test_what_libraries_may_try_fails(attempt: Attempt, name: str) -> None:
    outcome = attempt("on", name)
    assert outcome["error"], outcome
    assert outcome["said"].startswith(ERRORS[name]), outcome


@pytest.mark.parametrize("name", ["put_itself_last", "be_urgent"])
def test_it_may_give_way_and_not_go_first(attempt: Attempt, name: str) -> None:
    resource.setrlimit(resource.RLIMIT_RTPRIO, (min(5, _most_urgent()), _most_urgent()))
    assert attempt("on", name)["did"]


def _most_urgent() -> int:
    """What this process may ask for; endless is -1."""
    most = resource.getrlimit(resource.RLIMIT_RTPRIO)[1]
    return 99 if most == resource.RLIM_INFINITY else most


@needs_seccomp
def test_the_other_convention_of_x86_64_is_no_way_round(attempt: Attempt) -> None:
    outcome = attempt("on", "call_by_other_convention")
    assert outcome["signal"] == 31, outcome


@pytest.mark.parametrize("name", sorted({*CLOSED_FILES, *DEADLY, *ERRORS} - NOT_HERE))
def test_it_is_the_sandbox_that_refuses(attempt: Attempt, name: str) -> None:
    """Without it the same succeeds: else these tests would show nothing."""
    outcome = attempt("off", name)
    if outcome["error"] and not outcome["said"].startswith("PermissionError(13"):
        pytest.skip(f"not to be had on this machine: {outcome['said']}")
    assert outcome["did"], outcome
