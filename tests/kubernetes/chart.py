"""Print the chart as Helm renders it, as the files beside it have it, or what Helm's lint says.

    tests/kubernetes/chart.py plugin|dra [VALUES AS JSON]
    tests/kubernetes/chart.py lint

Helm is a library in Go, which a process of tests had better not have in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import helm_python

CHART = Path(__file__).parents[2] / "packaging" / "kubernetes" / "chart"
HEAD = """\
# The chart beside this file with its own values, for those who have no Helm.  Made by
# `tests/kubernetes/chart.py {driver}`: change the chart.
"""


def main() -> None:
    """Print what is asked for."""
    what = sys.argv[1]
    if what == "lint":
        report = helm_python.lint(CHART, strict=True)
        print(json.dumps([each for each in report["messages"] if each["severity"] > 1]))
        return
    values = {"driver": what} | json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}")
    files = helm_python.Chart.load(CHART).render(values, name="hesper", namespace="hesper")
    parts = [text.strip("\n") for _, text in sorted(files.items()) if text.strip()]
    print(HEAD.format(driver=what) + "\n---\n".join(parts))


if __name__ == "__main__":
    main()
