"""The recorder of conformance tests, with a program that behaves like deqp-vk at its worst."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
from conformance import Result, Runner, Side, group, parse, worse

FAKE = f"""#!{sys.executable}
import os, signal, sys, time
options = dict(word.split("=", 1) for word in sys.argv[1:])
log = open(options["--deqp-log-filename"], "w", buffering=1)
for case in open(options["--deqp-caselist-file"]).read().split():
    if case.startswith("unknown"):
        continue
    print("\\n#beginTestCaseResult " + case, file=log)
    kind = case.split(".")[0]
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(1000)
    print(f' <Result StatusCode="{{kind}}">said</Result>', file=log)
    print("#endTestCaseResult", file=log)
"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    deqp = tmp_path / "deqp-vk"
    deqp.write_text(FAKE)
    deqp.chmod(0o755)
    options = argparse.Namespace(
        deqp=str(deqp), root="/", device=1, patience=10.0, stop_on_fault=False, verbose=False
    )
    return Runner(options, Side("bare", {}), tmp_path)


@pytest.mark.parametrize(("jobs", "batch"), [(1, 100), (3, 2)])
def test_every_case_gets_its_own_result(runner: Runner, jobs: int, batch: int) -> None:
    kinds = ["Pass.a", "crash.b", "Fail.c", "hang.d", "NotSupported.e", "Pass.f", "crash.g"]
    runner.run(kinds, jobs=jobs, batch=batch)
    found = {case: result.status for case, result in runner.results.items()}
    assert found == {
        "Pass.a": "Pass",
        "crash.b": "Crash",
        "Fail.c": "Fail",
        "hang.d": "Timeout",
        "NotSupported.e": "NotSupported",
        "Pass.f": "Pass",
        "crash.g": "Crash",
    }
    assert runner.results["Fail.c"].text == "said"


def test_a_case_that_is_not_there_is_missing(runner: Runner) -> None:
    runner.run(["Pass.a", "unknown.b", "Pass.c"], jobs=1, batch=3)
    assert runner.results["unknown.b"].status == "Missing"
    assert runner.results["Pass.c"].status == "Pass"


def test_a_program_that_does_not_start_is_a_crash(runner: Runner) -> None:
    Path(runner.options.deqp).unlink()
    runner.run(["Pass.a", "Pass.b"], jobs=1, batch=2)
    assert {result.status for result in runner.results.values()} == {"Crash"}


def test_parse_takes_what_was_cut_short() -> None:
    log = "#beginTestCaseResult a\n#terminateTestCaseResult Crash\n#beginTestCaseResult b\n <Resu"
    assert parse(log) == ({"a": Result("Crash")}, "b")


def test_worse_is_what_only_hesper_fails() -> None:
    bare = {
        "x": Result("Pass"),
        "y": Result("Fail"),
        "z": Result("NotSupported"),
        "q": Result("Pass"),
    }
    other = {case: Result("Crash") for case in bare} | {"q": Result("NotSupported")}
    assert worse(bare, other) == ["x", "z"]


def test_group() -> None:
    assert group("dEQP-VK.draw.renderpass.a.b") == "draw.renderpass"
