"""Do again what was recorded, on any driver, without the guest."""

from __future__ import annotations

import sys
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hesper import log
from hesper.api.options import HostOptions
from hesper.api.recording import ask, check_recording, make_request
from hesper.cli import EXIT_FAILURE, fail
from hesper.extras import needed

if TYPE_CHECKING:
    from hesper.api.recording import Outcome, Picture

check_recording()


def command(
    recording: Path,
    *,
    driver: str | None = None,
    host_profile: str | None = None,
    speed: Literal["real", "max"] = "max",
    until: Annotated[int | None, Parameter(metavar="NUMBER", negative=())] = None,
    verify: Annotated[bool, Parameter(negative=())] = False,
    picture: Annotated[Path | None, Parameter(metavar="FILE", negative=())] = None,
    sandbox: Literal["on", "report", "off"] = "on",
) -> None:
    """Do again what was recorded, on any driver, without the guest.

    Prints what came of it, and how fast. Fails where the recording cannot be replayed to its end,
    and with --verify where something else comes out.

    Parameters
    ----------
    recording:
        The file. It may be hostile, as a guest may: it is replayed in the sandbox that guests are
        served in.
    driver:
        The host's Vulkan driver, see `hesper drivers`. Default: the one that can do most.
    host_profile:
        Offer no more than another driver would: a file, `moltenvk` or `kosmickrisp`.
    speed:
        As fast as it goes, or as fast as it was.
    until:
        Stop before the command of this number (see `hesper inspect --commands`).
    verify:
        Compare results, and memory that the guest had mapped, with what they were.
    picture:
        Write the last picture that the program could see to this file (PNG): what it copied from
        an image last, or an image in memory that it had mapped.
    sandbox:
        How the process is confined that replays.
    """
    log.configure(level="warning")
    options = {"real": speed == "real", "until": until, "verify": verify}
    options["picture"] = picture is not None
    request = make_request("replay", replay=options)
    host = HostOptions(driver=driver, host_profile=host_profile, sandbox=sandbox)
    # Twice: what becomes of memory is read ahead.
    told = ask([recording, recording], request, host, notice=_notice)
    said = [each.outcome for each in told if each.outcome]
    if not said:
        fail("the process that replays has said nothing")
    outcome = said[0]
    _print(outcome, is_verified=verify)
    if picture is not None:
        _save(outcome.picture, picture)
    if outcome.fatal or (verify and (outcome.results_other or outcome.pages_other)):
        raise SystemExit(EXIT_FAILURE)


def _notice(what: str) -> None:
    """Say what is waited for."""
    print(f"hesper: {what}", file=sys.stderr, flush=True)


def _print(found: Outcome, *, is_verified: bool) -> None:
    """Say what has come of it."""
    rate = found.submissions / found.seconds if found.seconds else 0.0
    print(
        f"{found.commands} commands, {found.submissions} submissions in {found.seconds:.3f} s"
        f" ({rate:.1f} submissions/s)"
    )
    for what, count in found.translated.items():
        if count:
            print(f"translated: {count} {what}")
    if found.lacks:
        print(f"made without what this driver lacks: {', '.join(found.lacks)}")
    for limit, count in found.misplaced.items():
        print(f"left out: {count} descriptors at places that this driver does not allow ({limit})")
    if found.without:
        print(f"left out: {found.without} commands that name what this driver has not made")
    if found.stuck:
        print(f"{found.stuck} times work was not waited for: it waits for what comes later")
    if is_verified:
        _print_comparison(found)
    for difference in found.differences:
        print(difference)
    if found.fatal:
        print(f"ended at {found.fatal}")


def _print_comparison(found: Outcome) -> None:
    print(f"results: {found.results_same} the same, {found.results_other} others")
    if found.answers_other:
        print(f"what the driver offers: {found.answers_other} answers are others")
    print(f"pages in the end: {found.pages_same} the same, {found.pages_other} others")
    if found.pages_unknown:
        print(f"pages noted while the device was at work, which may be: {found.pages_unknown}")
    print(f"pages written to the same bytes meanwhile: {found.pages_confirmed}")
    if found.pages_replaced:
        print(f"pages written to others, or by the guest after it: {found.pages_replaced}")
    if found.picture_error is not None:
        print(f"the last picture: {_distance(found.picture_error)}")


def _distance(error: float) -> str:
    """How far two pictures are apart, of a mean squared error."""
    return "the same" if error == 0 else f"another, PSNR {10 * log10(255**2 / error):.1f} dB"


def _save(picture: Picture | None, path: Path) -> None:
    """Write it as a PNG, which has no order of colours but one."""
    if picture is None:
        fail("--picture: the program could see no picture, of 8 bits a colour, in mapped memory")
    with needed("--picture", "display"):
        from PIL import Image
    size = (picture.width, picture.height)
    if len(picture.pixels) != 4 * picture.width * picture.height:
        fail("--picture: the process that replays spoke nonsense")
    raw = f"{picture.order[:3]}X"
    Image.frombytes("RGB", size, picture.pixels, "raw", raw).save(path, "PNG")
