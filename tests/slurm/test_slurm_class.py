"""Slurm's prolog and epilog (`packaging/slurm/hesper-class`); `scripts/record-slurm` runs Slurm."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging/slurm/hesper-class"


class Node:
    """A node with a class, and a controller that says what a test has it say."""

    def __init__(self, folder: Path) -> None:
        """folder: the test's own."""
        self.classes = folder / "hesper"
        (self.classes / "gold").mkdir(parents=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.classes / "gold/vtest"))
        self.socket.listen()
        self.job = self.classes / "jobs/17"
        self._folder = folder
        for name in ("prolog", "epilog", "task-prolog"):
            (folder / f"hesper-{name}").symlink_to(SCRIPT)

    def run(self, name: str, shown: str = "") -> subprocess.CompletedProcess[str]:
        """Run one of the three, for job 17."""
        scontrol = self._folder / "scontrol"
        scontrol.write_text(f"#!/bin/sh\n{shown or 'exit 1'}\n")
        scontrol.chmod(0o755)
        env = {
            "PATH": str(self._folder),
            "HESPER_CLASSES": str(self.classes),
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_UID": str(os.getuid()),
        }
        command = [str(self._folder / f"hesper-{name}")]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path)
    yield one
    one.socket.close()


def test_a_job_gets_the_socket_of_its_class_and_it_is_taken_back(node: Node) -> None:
    done = node.run("prolog", "echo JobId=17 JOB_GRES=cpu:1,gpu:gold:1 Nodes=vm GRES=x")
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE(node.job.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(node.job / "vtest"))
    shown = node.run("task-prolog").stdout.splitlines()
    assert f"export VTEST_SOCKET_NAME={node.job}/vtest" in shown
    assert "export VN_DEBUG=vtest" in shown
    assert node.run("epilog").returncode == 0
    assert not node.job.exists()
    assert node.run("task-prolog").stdout == ""


@pytest.mark.parametrize(
    "shown", ["JobId=17 JOB_GRES=(null) x", "JobId=17 TresPerNode= x", "JobId=17 JOB_GRES=fpga:1 x"]
)
def test_a_job_without_a_gpu_gets_none(node: Node, shown: str) -> None:
    assert node.run("prolog", f"echo '{shown}'").returncode == 0
    assert not node.job.exists()


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        ("echo ' JOB_GRES=gpu:silver:1 '", "no class silver"),
        ("echo ' JOB_GRES=gpu:1 '", "no class all"),
    ],
)
def test_a_class_that_is_not_there_is_said(node: Node, shown: str, says: str) -> None:
    done = node.run("prolog", shown)
    assert done.returncode == 1
    assert says in done.stderr
    assert not node.job.exists()


def test_no_job_runs_whose_class_is_not_known(node: Node) -> None:
    assert node.run("prolog").returncode != 0


def test_a_type_is_no_path(node: Node) -> None:
    node.run("prolog", "echo ' JOB_GRES=gpu:../gold:1 '")
    assert not node.job.exists()


@pytest.mark.parametrize(
    "shown",
    [
        "JobId=17 JobName=x JOB_GRES=gpu:iron:1 Comment= JOB_GRES=gpu:gold:1 ",
        "JobId=17 JobName= JOB_GRES=gpu:gold:1 UserId=user JOB_GRES=(null) Nodes=vm",
        "JobId=17 JobName=x JOB_GRES=gpu:iron:1 Comment=\n JOB_GRES=gpu:gold:1",
        "JobId=17 JobName=x JOB_GRES=(null) Comment= JOB_GRES=gpu:none:1 ",
    ],
)
def test_a_user_names_no_class_in_a_comment(node: Node, shown: str) -> None:
    """Nor does the prolog fail of it, which would drain the node."""
    done = node.run("prolog", f"echo '{shown}'")
    assert done.returncode == 0
    assert "gets none" in done.stderr
    assert not node.job.exists()


def test_a_type_of_which_a_job_has_none_is_not_its_class(node: Node) -> None:
    """As Slurm shows a job that has asked for no type, on a node where some are taken."""
    done = node.run("prolog", "echo JobId=17 JOB_GRES=gpu:iron:0,gpu:gold:1 Nodes=vm")
    assert (done.returncode, done.stderr) == (0, "")
    assert (node.job / "vtest").samefile(node.classes / "gold/vtest")
