#!/usr/bin/env python3
"""Run the protocol compiler from the source tree: `compile_protocol.py FOLDER`."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
runpy.run_module("hesper.protocol.compiler", run_name="__main__")
