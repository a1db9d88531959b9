"""Run one target with atheris: `python -m fuzz TARGET [LIBFUZZER ARGUMENTS]`.

`fuzz.runner` starts it with what it needs in the environment.
"""

from __future__ import annotations

import ast
import gc
import importlib
import sys
from pathlib import Path

import atheris

from hesper import log


def instrumented(name: str) -> list[str]:
    """The packages that a target names, which must be known before it is imported."""
    source = Path(__file__).with_name("targets") / f"{name}.py"
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INSTRUMENTED":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{source} has no INSTRUMENTED")


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=instrumented(name)):
        target = importlib.import_module(f"fuzz.targets.{name}")
    # Thousands of lines a second would say what is known: that the input is no good.
    log.set_sink(lambda *_: None, level="error")
    atheris.Setup([sys.argv[0], *arguments], target.run_one)
    target.prepare()
    # What is there stays: rubbish is looked for after many inputs, and only among what they made.
    gc.collect()
    gc.freeze()
    atheris.Fuzz()


if __name__ == "__main__":
    main()
