"""The six names, their types, and options: what cannot be is refused when it is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hesper
from hesper.errors import HesperError, OptionError

Options = hesper.VtestServer.Options


@pytest.mark.parametrize(
    ("wrong", "option", "says"),
    [
        ({"max_clients": 0}, "max_clients", "must be a whole number, 1 to 65536; left out, "),
        ({"max_clients": "5"}, "max_clients", "must be a whole number"),
        ({"max_clients": True}, "max_clients", "must be a whole number"),
        ({"warm": 0}, "warm", "must be a whole number, 1 to 1024"),
        ({"mode": 0o1777}, "mode", "must be permissions, as in 0o660"),
        ({"patience": -1}, "patience", "must be a whole number, 0 to 100000; left out, "),
        ({"handshake_timeout": -1}, "handshake_timeout", "None: for ever"),
        ({"handshake_timeout": float("nan")}, "handshake_timeout", "None: for ever"),
        ({"sample": -1}, "sample", "must be a whole number"),
        ({"driver": 7}, "driver", "must be a driver's name or the path of its manifest"),
        ({"host_profile": 7}, "host_profile", "must be the path of a profile"),
        ({"limits": {"memory": 1}}, "limits", "must be hesper.Limits"),
    ],
)
def test_options_that_cannot_be(wrong: dict[str, object], option: str, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        Options(**wrong)  # type: ignore[arg-type]
    assert caught.value.option == option
    assert str(caught.value).startswith(f"{option}=")
    assert isinstance(caught.value, HesperError)
    assert isinstance(caught.value, ValueError)


def test_limits_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="rings=0: must be a whole number, 1 or more"):
        hesper.Limits(rings=0)
    assert hesper.Limits(memory=1 << 30).memory == 1 << 30


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Options().warm = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Options().limits.rings = 3  # type: ignore[misc]


def test_names_that_there_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'hesper' has no attribute 'nothing'"):
        _ = hesper.nothing  # type: ignore[attr-defined]
    assert set(hesper.__all__) <= set(dir(hesper))
    assert sorted(hesper.__all__) == [
        "GpuDevice",
        "Limits",
        "VtestServer",
        "diagnose",
        "drivers",
        "protocol",
    ]
    assert all(getattr(hesper, name) is not None for name in hesper.__all__)


def test_importing_hesper_costs_nothing() -> None:
    """Neither the kernel, nor what else takes long, before somebody asks for it."""
    script = (
        "import sys; before = set(sys.modules); import hesper;"
        "print(*sorted(set(sys.modules) - before))"
    )
    package = str(Path(hesper.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    outside = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert outside == {"hesper"}


def test_the_gpu_wants_its_extra() -> None:
    script = (
        "import sys; sys.modules['numpy'] = None\n"
        "import hesper; from hesper.errors import HesperError\n"
        "hesper.Limits, hesper.VtestServer\n"
        "try: hesper.GpuDevice\n"
        "except (HesperError, ImportError) as error: print(type(error).__name__, error)\n"
    )
    package = str(Path(hesper.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        "MissingExtraError hesper.GpuDevice needs numpy, which is not installed:"
        " pip install 'hesper[display]'\n"
    )


@pytest.mark.programs  # mypy
def test_clients_see_the_types(tmp_path: Path) -> None:
    """A program that uses all six names passes mypy --strict; one that misuses them does not."""
    right = tmp_path / "right.py"
    right.write_text(
        "import hesper\n"
        "limits = hesper.Limits(memory=1 << 30)\n"
        "options = hesper.VtestServer.Options(limits=limits, warm=1)\n"
        "def serve() -> str:\n"
        "    with hesper.VtestServer('/s', options) as server:\n"
        "        return server.about.driver\n"
        "def show() -> int:\n"
        "    gpu = hesper.GpuDevice('/s', hesper.GpuDevice.Options(scanouts=2))\n"
        "    return len(gpu.start().display)\n"
        "chosen = hesper.drivers('lvp').chosen\n"
        "name: str | None = chosen.name if chosen else None\n"
        "able: bool = hesper.diagnose().able\n"
        "count: int = len(hesper.protocol.load().commands)\n"
    )
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import hesper\n"
        "hesper.VtestServer.Options(warm='1')\n"
        "hesper.VtestServer(7)\n"
        "hesper.Limits(1)\n"
        "hesper.nothing\n"
    )
    package = Path(hesper.__file__).parents[1]
    # What is installed mypy finds by itself, and wants named nowhere else.
    path = {} if package.name == "site-packages" else {"MYPYPATH": str(package)}
    found = {}
    for program in (right, wrong):
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(program)],
            env={**os.environ, **path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        found[program.stem] = done.stdout
    assert found["right"].startswith("Success"), found["right"]
    for number in range(2, 6):
        assert f"wrong.py:{number}: error" in found["wrong"], found["wrong"]
