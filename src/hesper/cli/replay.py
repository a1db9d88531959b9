"""Do again what was recorded, on any driver, without the guest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hesper import log
from hesper.api.options import HostOptions
from hesper.api.recording import ask, make_request
from hesper.cli import EXIT_FAILURE


def command(
    recording: Path,
    *,
    driver: str | None = None,
    host_profile: str | None = None,
    speed: Literal["real", "max"] = "max",
    until: Annotated[int | None, Parameter(metavar="NUMBER", negative=())] = None,
    verify: Annotated[bool, Parameter(negative=())] = False,
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
        Offer no more than another driver would: a file, or `moltenvk`.
    speed:
        As fast as it goes, or as fast as it was.
    until:
        Stop before the command of this number (see `hesper inspect --commands`).
    verify:
        Compare results, and memory that the guest had mapped, with what they were.
    sandbox:
        How the process is confined that replays.
    """
    log.configure(level="warning")
    options = {"real": speed == "real", "until": until, "verify": verify}
    request = make_request("replay", replay=options)
    host = HostOptions(driver=driver, host_profile=host_profile, sandbox=sandbox)
    is_good = False
    for said in ask([recording], request, host):
        found = said.outcome
        if found is None:
            continue
        rate = found.submissions / found.seconds if found.seconds else 0.0
        print(
            f"{found.commands} commands, {found.submissions} submissions in {found.seconds:.3f} s"
            f" ({rate:.1f} submissions/s)"
        )
        for what, count in found.translated.items():
            if count:
                print(f"translated: {count} {what}")
        if found.stuck:
            print(f"{found.stuck} times work was not waited for: it waits for what comes later")
        if verify:
            print(
                f"results: {found.results_same} the same, {found.results_other} others\n"
                f"pages in the end: {found.pages_same} the same, {found.pages_other} others\n"
                f"pages written to the same bytes meanwhile: {found.pages_confirmed}"
            )
        for difference in found.differences:
            print(difference)
        if found.fatal:
            print(f"ended at {found.fatal}")
        is_good = not found.fatal and not (verify and (found.results_other or found.pages_other))
    if not is_good:
        raise SystemExit(EXIT_FAILURE)
