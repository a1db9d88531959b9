"""The filter of system calls, on both kinds of processors, without the kernel."""

from __future__ import annotations

import errno
import signal

import pytest
from bpf_machine import run

from hesper.sandbox import bpf, seccomp
from hesper.sandbox.calls import AUDIT, call_name, numbers
from hesper.sandbox.needs import needs_of, table

PID = 4242
KINDS = list(AUDIT)
THREAD = 0x003D0F00
"""What glibc makes a thread with."""


UDMABUF, DRM, DMA_BUF, SYNC_FILE = b"udb>"
"""Bits 8 to 15 of their requests."""


class Filter:
    """A worker's filter on one kind of processor."""

    def __init__(
        self, kind: str, patch: pytest.MonkeyPatch, driver: str = "lvp", *, report: bool = False
    ) -> None:
        patch.setattr(seccomp, "architecture", lambda: kind)
        self.kind = kind
        self.program = seccomp.worker_filter(needs_of(driver), PID, report=report)

    def says(self, name: str, *arguments: int) -> int:
        return run(self.program, AUDIT[self.kind], numbers(self.kind)[name], arguments)


@pytest.fixture(params=KINDS)
def filtered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Filter:
    return Filter(request.param, monkeypatch)


def test_each_call_is_allowed_if_and_only_if_the_table_says_so(filtered: Filter) -> None:
    allowed = {name for names in table().calls.values() for name in names}
    some = {*table().values, *table().without, *table().own_thread}
    for name in numbers(filtered.kind):
        if name in {*some, "clone", "kill", "tgkill", "kcmp"}:
            continue
        wanted = bpf.TRAP
        if name in allowed:
            wanted = bpf.ALLOW
        elif name in table().errors:
            wanted = bpf.ERROR | getattr(errno, table().errors[name])
        assert filtered.says(name) == wanted, name


def test_every_name_in_the_table_is_a_call() -> None:
    known = set().union(*map(numbers, KINDS))
    named = [name for names in table().calls.values() for name in names]
    named += [
        *table().values,
        *table().without,
        *table().own_thread,
        *table().errors,
        *seccomp.HARMFUL,
        *seccomp.PATHS,
    ]
    named += [need.call for some in table().drivers for need in some.needs if need.call]
    assert set(named) - known == set()
    calls = [name for names in table().calls.values() for name in names]
    assert len(calls) == len(set(calls))
    for error in table().errors.values():
        assert getattr(errno, error)


def test_each_need_says_why_and_of_whom() -> None:
    for some in table().drivers:
        for need in some.needs:
            assert need.why, need
            assert need.source, need
            files = need.read or need.write or need.preload
            assert files or need.call or need.ioctl is not None or need.address_space


def test_threads_can_be_made_and_processes_cannot(filtered: Filter) -> None:
    refused = bpf.ERROR | errno.EPERM
    assert filtered.says("clone", THREAD) == bpf.ALLOW
    assert filtered.says("clone", THREAD | 0x400000) == bpf.ALLOW  # musl
    assert filtered.says("clone", signal.SIGCHLD) == refused
    assert filtered.says("clone", 0x4111) == refused  # vfork's
    for namespace in (0x00020000, 0x02000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
        assert filtered.says("clone", THREAD | namespace) == refused
    assert filtered.says("clone3") == bpf.ERROR | errno.ENOSYS


def test_pages_are_small(filtered: Filter) -> None:
    refused = bpf.ERROR | errno.ENOMEM
    for flags in (0, 1, 3, 0xB):  # MFD_CLOEXEC, _ALLOW_SEALING, _NOEXEC_SEAL
        assert filtered.says("memfd_create", 4096, flags) == bpf.ALLOW
        assert filtered.says("memfd_create", 4096, flags | 0x4) == refused
        assert filtered.says("memfd_create", 4096, flags | 0x4 | 21 << 26) == refused
    for flags in (0x01, 0x22, 0x4022, 0x20022):  # of files, anonymous, not reserved, for stacks
        assert filtered.says("mmap", 0, 4096, 3, flags) == bpf.ALLOW
        assert filtered.says("mmap", 0, 4096, 3, flags | 0x40000) == refused


def test_signals_are_for_itself(filtered: Filter) -> None:
    for name in ("kill", "tgkill"):
        assert filtered.says(name, PID, 6) == bpf.ALLOW
        for other in (PID + 1, 0, 0xFFFFFFFF):
            assert filtered.says(name, other, 6) == bpf.TRAP
    assert filtered.says("kcmp", PID, PID) == bpf.ALLOW
    assert filtered.says("kcmp", PID, PID + 1) == filtered.says("kcmp", PID + 1, PID) == bpf.TRAP


def test_requests_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    submit, uvm, terminal, udmabuf = 0xC0186444, 0x30000001, 0x5412, 0x40187542
    for driver, wanted in {"lvp": {udmabuf}, "radeon": {submit}, "nvidia": {submit, uvm}}.items():
        filtered = Filter("x86_64", monkeypatch, driver)
        allowed = {
            request
            for request in (submit, uvm, terminal, udmabuf)
            if filtered.says("ioctl", 5, request) == bpf.ALLOW
        }
        assert allowed == wanted, driver
    for asked in (0x5401, 0x802C542A):  # by glibc before 2.42, and since
        assert filtered.says("ioctl", 5, asked) == bpf.ALLOW


def test_who_makes_dma_bufs_may_ask_of_them_what_they_answer() -> None:
    """Where there is /dev/udmabuf, which machines that run these tests often have not."""
    makers = {UDMABUF, DRM}
    for drivers in table().drivers:
        for name in drivers.names:
            asked = {need.ioctl for need in needs_of(name)}
            assert not asked & makers or asked >= {DMA_BUF, SYNC_FILE}, name


def test_values_are_compared(filtered: Filter) -> None:
    assert filtered.says("prctl", 15) == filtered.says("prlimit64", 0, 7) == bpf.ALLOW
    assert filtered.says("prctl", 4) == filtered.says("prlimit64", PID + 1) == bpf.TRAP
    assert filtered.says("fcntl", 3, 1030) == bpf.ALLOW
    assert filtered.says("fcntl", 3, 8, 1) == bpf.TRAP


def test_no_call_is_for_other_threads(filtered: Filter) -> None:
    no = bpf.ERROR | errno.EPERM
    for name in ("sched_setaffinity", "sched_setscheduler"):
        assert filtered.says(name, 0, 8) == bpf.ALLOW
        assert filtered.says(name, PID) == filtered.says(name, 1) == no
    assert filtered.says("setpriority", 0, 0, 19) == bpf.ALLOW
    for which, who in ((0, 1), (1, 0), (2, 0)):  # a process, its group, its user's all
        assert filtered.says("setpriority", which, who, 19) == no


def test_calls_of_another_kind_of_processor_end_it(filtered: Filter) -> None:
    for number in range(500):
        assert run(filtered.program, 0x40000003, number) == bpf.KILL


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_asks_for_what_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, report = Filter(kind, monkeypatch), Filter(kind, monkeypatch, report=True)
    for name in numbers(kind):
        if name in seccomp.PATHS:
            assert report.says(name) == bpf.NOTIFY, name
        elif plain.says(name) == bpf.ALLOW or name == "clone3":
            assert report.says(name) == plain.says(name), name
        else:
            assert report.says(name) == bpf.NOTIFY, name


@pytest.mark.parametrize("kind", KINDS)
def test_helpers_may_all_but_the_worst(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "architecture", lambda: kind)
    program = seccomp.helper_filter()
    for name, number in numbers(kind).items():
        wanted = bpf.ERROR | errno.EPERM if name in seccomp.HARMFUL else bpf.ALLOW
        assert run(program, AUDIT[kind], number) == wanted, name


def test_a_dead_worker_is_told_of_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "architecture", lambda: "x86_64")
    assert seccomp.describe(437, [0, 0]) == "openat2 (437)"
    assert seccomp.describe(16, [3, 0xFFFFFFFF00005412]) == "ioctl (16) of 0x5412"
    assert seccomp.describe(9999, []) == "a call (9999)"
    text = seccomp.remedy(437, [])
    assert text.startswith("seccomp: openat2 (437) is not allowed")
    assert "needs.toml" in text
    assert "--sandbox off" in text
    assert call_name(437, "aarch64") == "openat2 (437)"
