"""Images for others lie in a replay as they lay then, if the driver has others' or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_drivers import METAL, MODES, make_driver
from given_away import IMAGE, PAGES, PITCH, give_away
from guest_client import Guest
from recorded_guest import lavapipe, record_to, replay
from recordings import command, file_of, read

from hesper.guest import Limits
from hesper.isolation.driver import OpenDriver
from hesper.protocol.codec import Codec
from hesper.trace.decoded import decode
from hesper.trace.layouts import insist, relent
from hesper.trace.outcome import Outcome, ReplayOptions
from hesper.trace.plan import Plan
from hesper.trace.records import Reader
from hesper.trace.replay import Replay

CODEC = Codec()
HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
SECONDS = 120.0


@pytest.fixture(scope="module", params=[True, False], ids=["asked", "not asked"])
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, made on lavapipe."""
    path = tmp_path_factory.mktemp("given") / "given.hesper"
    recorder = record_to(path)
    guest = Guest(lavapipe(), tape=recorder.tape).start()
    give_away(guest, asks=request.param)
    guest.close()
    recorder.close()
    return path


def test_they_lie_as_they_did(given: Path) -> None:
    outcome = replay(given, verify=True)
    assert (outcome.fatal, outcome.pages_other, outcome.results_other) == ("", 0, 0)
    assert outcome.pages_same == PAGES


@pytest.mark.programs
@pytest.mark.parametrize("mode", MODES)
def test_they_do_on_other_drivers(given: Path, mode: str, tmp_path: Path) -> None:
    """A process of its own: fake drivers abort where a rule of theirs is broken."""
    driver = make_driver(tmp_path / "driver", mode)
    pages = {"HESPER_PAGE_SIZE": "16384"} if mode in METAL else {}
    done = subprocess.run(
        [*HESPER, "replay", str(given), "--driver", str(driver.manifest), "--verify"],
        env=os.environ | pages,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"pages in the end: {PAGES} the same, 0 others" in done.stdout


def test_the_driver_lays_out_what_cannot_lie_as_it_did(given: Path) -> None:
    with given.open("rb") as file:
        plan = Plan(Reader(file))
    ((number, layout),) = plan.layouts.items()
    assert layout == (0, PITCH)
    plan.layouts[number] = (0, PITCH - 1)
    host = OpenDriver(lavapipe(), Limits(), None, None)
    player = Replay(host, ReplayOptions(verify=True), lambda *_: None, plan)
    try:
        with given.open("rb") as file:
            outcome: Outcome = player.run(Reader(file))
    finally:
        player.close()
    assert (outcome.fatal, outcome.without, outcome.results_other) == ("", 0, 0)
    assert outcome.pages_other == 0


def test_a_layout_is_insisted_on_and_given_up() -> None:
    _, records = read(
        file_of(
            command(CODEC.encode("vkCreateImage", {"device": 3, "pCreateInfo": IMAGE, "pImage": 7}))
        )
    )
    then = decode(0, records[0])
    assert then.parameters is not None
    before = then.parameters["pCreateInfo"]["pNext"]
    assert not relent(then)
    insist(then, 64, 1600)
    external, (name, explicit) = then.parameters["pCreateInfo"]["pNext"]
    assert external == before[0]
    assert name == "VkImageDrmFormatModifierExplicitCreateInfoEXT"
    assert explicit["pPlaneLayouts"] == [{"offset": 64, "rowPitch": 1600}]
    assert relent(then)
    assert then.parameters["pCreateInfo"]["pNext"] == before
