"""What fuzzers begin with, and what they have found: all of it is run by every test run."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

from hesper import log

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are no good, as thousands of lines would say."""
    monkeypatch.setattr(log, "_sink", lambda *_: None)


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_of_fuzzers(name: str) -> None:
    target = importlib.import_module(f"fuzz.targets.{name}")
    target.prepare()
    files = sorted((CORPUS / name).iterdir())
    assert files
    for file in files:
        try:
            target.run_one(file.read_bytes())
        except BaseException as error:
            error.add_note(f"the input is {file}")
            raise
