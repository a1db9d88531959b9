"""Which work ends by itself, and what of it the guest knew to be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from guest_client import DEVICE, QUEUE
from recorded_guest import SIZE, Copier, record_to, replay
from recordings import command, file_of, read

from hesper.protocol.codec import Codec
from hesper.trace import settling
from hesper.trace.decoded import Decoded, decode
from hesper.trace.known import Known
from hesper.trace.records import EARLIER, NESTED, Record
from hesper.trace.work import Work
from hesper.vk.enumerants import VK_SEMAPHORE_TYPE_TIMELINE

CODEC = Codec()
ONE, OTHER = 5, 6
TIMELINE, BINARY = 20, 21
RING = 99


def record_of(name: str, flags: int = 0, stream: int = 0, **parameters: Any) -> Record:
    """A command, as it is recorded."""
    _, (found,) = read(file_of(command(CODEC.encode(name, parameters), stream=stream)))
    return found._replace(flags=found.flags | flags)


def decoded(name: str, *, result: int | None = None, **parameters: Any) -> Decoded:
    """A command that has returned `result`."""
    return decode(0, record_of(name, **parameters))._replace(result=result)


def semaphore(id_: int, value: int | None = None) -> Decoded:
    """One that counts from `value` on, or one that does not."""
    chain = []
    if value is not None:
        info = {"semaphoreType": VK_SEMAPHORE_TYPE_TIMELINE, "initialValue": value}
        chain = [("VkSemaphoreTypeCreateInfo", info)]
    return decoded("vkCreateSemaphore", device=3, pCreateInfo={"pNext": chain}, pSemaphore=id_)


Places = Sequence[tuple[int, int]]


def submit_info(waits: Places, signals: Places) -> dict[str, Any]:
    """A VkSubmitInfo."""
    values = {
        "waitSemaphoreValueCount": len(waits),
        "pWaitSemaphoreValues": [value for _, value in waits],
        "signalSemaphoreValueCount": len(signals),
        "pSignalSemaphoreValues": [value for _, value in signals],
    }
    return {
        "pNext": [("VkTimelineSemaphoreSubmitInfo", values)],
        "waitSemaphoreCount": len(waits),
        "pWaitSemaphores": [id_ for id_, _ in waits],
        "pWaitDstStageMask": [1] * len(waits),
        "signalSemaphoreCount": len(signals),
        "pSignalSemaphores": [id_ for id_, _ in signals],
    }


def submit_info_2(waits: Places, signals: Places) -> dict[str, Any]:
    """A VkSubmitInfo2."""
    return {
        "waitSemaphoreInfoCount": len(waits),
        "pWaitSemaphoreInfos": [{"semaphore": id_, "value": value} for id_, value in waits],
        "signalSemaphoreInfoCount": len(signals),
        "pSignalSemaphoreInfos": [{"semaphore": id_, "value": value} for id_, value in signals],
    }


def submit(queue: int, waits: Places = (), signals: Places = (), *, fence: int = 0) -> Decoded:
    """A vkQueueSubmit."""
    infos = [submit_info(waits, signals)]
    return decoded("vkQueueSubmit", queue=queue, submitCount=1, pSubmits=infos, fence=fence)


def submit_2(queue: int, waits: Places = (), signals: Places = ()) -> Decoded:
    """A vkQueueSubmit2."""
    infos = [submit_info_2(waits, signals)]
    return decoded("vkQueueSubmit2", queue=queue, submitCount=1, pSubmits=infos, fence=0)


def bind_sparse(queue: int, waits: Places = (), signals: Places = ()) -> Decoded:
    """A vkQueueBindSparse."""
    info = submit_info(waits, signals)
    del info["pWaitDstStageMask"]
    return decoded("vkQueueBindSparse", queue=queue, bindInfoCount=1, pBindInfo=[info], fence=0)


@pytest.mark.parametrize("submits", [submit, submit_2, bind_sparse])
def test_what_waits_for_a_later_signal_does_not_end_by_itself(submits: Any) -> None:
    work = Work()
    work.note(semaphore(TIMELINE, 3))
    work.note(submits(ONE, [(TIMELINE, 3)]))
    assert work.blocked() == set()
    work.note(submits(ONE, [(TIMELINE, 5)]))
    work.note(submits(OTHER))
    assert work.blocked() == {ONE}
    work.note(submits(OTHER, [], [(TIMELINE, 4)]))
    assert work.blocked() == {ONE}
    work.note(
        decoded("vkSignalSemaphore", device=3, pSignalInfo={"semaphore": TIMELINE, "value": 5})
    )
    assert work.blocked() == set()


def test_queues_that_wait_for_each_other_end_in_turn() -> None:
    work = Work()
    work.note(semaphore(TIMELINE, 0))
    work.note(submit(ONE, [(TIMELINE, 1)], [(TIMELINE, 2)]))
    work.note(submit(ONE, [(TIMELINE, 3)]))
    assert work.blocked() == {ONE}
    work.note(submit(OTHER, [], [(TIMELINE, 1)]))
    work.note(submit(OTHER, [(TIMELINE, 2)], [(TIMELINE, 3)]))
    assert work.blocked() == set()


def test_semaphores_that_do_not_count_are_used_again_and_again() -> None:
    work = Work()
    work.note(semaphore(BINARY))
    work.note(submit(ONE, [(BINARY, 0)]))
    assert work.blocked() == set(), "others have signalled it"
    for _ in range(3):
        work.note(submit(ONE, [], [(BINARY, 0)]))
        work.note(submit(OTHER, [(BINARY, 0)]))
    assert work.blocked() == set()
    work.note(semaphore(TIMELINE, 0))
    work.note(submit(ONE, [(TIMELINE, 1)], [(BINARY, 0)]))
    work.note(submit(OTHER, [(BINARY, 0)]))
    assert work.blocked() == {ONE, OTHER}
    work.note(submit(7, [], [(TIMELINE, 1)]))
    assert work.blocked() == set()


def test_an_id_that_is_used_again_is_another_semaphore() -> None:
    work = Work()
    work.note(semaphore(TIMELINE, 9))
    work.note(decoded("vkDestroySemaphore", device=3, semaphore=TIMELINE))
    work.note(semaphore(TIMELINE, 0))
    work.note(submit(ONE, [(TIMELINE, 9)]))
    assert work.blocked() == {ONE}


@pytest.fixture
def known() -> Iterator[Known]:
    """One queue with a timeline, and a submission on it with a fence and a value to count to."""
    found = Known()
    chain = [("VkDeviceQueueTimelineInfoMESA", {"ringIdx": 1})]
    found.note(decoded("vkGetDeviceQueue2", device=3, pQueueInfo={"pNext": chain}, pQueue=ONE))
    assert found.is_all
    found.note(submit(ONE, [], [(TIMELINE, 4)], fence=8))
    assert not found.is_all
    return found


def waited_for(name: str, **parameters: Any) -> Decoded:
    return decoded(name, result=0, **parameters)


@pytest.mark.parametrize(
    ("looked", "is_done"),
    [
        (waited_for("vkGetFenceStatus", device=3, fence=8), True),
        (waited_for("vkGetFenceStatus", device=3, fence=9), False),
        (decoded("vkGetFenceStatus", result=1, device=3, fence=8), False),
        (waited_for("vkWaitForFences", device=3, fenceCount=1, pFences=[8]), True),
        (waited_for("vkWaitForFences", device=3, fenceCount=2, pFences=[8, 9], waitAll=1), True),
        (waited_for("vkWaitForFences", device=3, fenceCount=2, pFences=[8, 9]), False),
        (waited_for("vkQueueWaitIdle", queue=ONE), True),
        (waited_for("vkQueueWaitIdle", queue=OTHER), False),
        (waited_for("vkDeviceWaitIdle", device=3), True),
        (waited_for("vkDeviceWaitIdle", device=4), False),
        (
            waited_for(
                "vkWaitSemaphores",
                device=3,
                pWaitInfo={"semaphoreCount": 1, "pSemaphores": [TIMELINE], "pValues": [4]},
            ),
            True,
        ),
        (
            waited_for(
                "vkWaitSemaphores",
                device=3,
                pWaitInfo={"semaphoreCount": 1, "pSemaphores": [TIMELINE], "pValues": [3]},
            ),
            False,
        ),
        (
            waited_for(
                "vkGetSemaphoreCounterValue", device=3, semaphore=TIMELINE, pValue=0
            )._replace(outputs={"pValue": 4}),
            True,
        ),
        (
            waited_for(
                "vkGetSemaphoreCounterValue", device=3, semaphore=TIMELINE, pValue=0
            )._replace(outputs={"pValue": 3}),
            False,
        ),
    ],
)
def test_who_has_looked_knows(known: Known, looked: Decoded, *, is_done: bool) -> None:
    known.note(looked)
    assert known.is_all == is_done
    known.note(submit(ONE))
    assert not known.is_all


def test_a_fence_that_was_reset_says_nothing(known: Known) -> None:
    known.note(decoded("vkResetFences", device=3, fenceCount=1, pFences=[8]))
    known.note(waited_for("vkGetFenceStatus", device=3, fence=8))
    assert not known.is_all


def test_a_frontends_fence_says_what_had_run_of_the_ring_it_waits_for() -> None:
    known = Known()
    chain = [("VkDeviceQueueTimelineInfoMESA", {"ringIdx": 1})]
    named: dict[str, Any] = {"device": 3, "pQueueInfo": {"pNext": chain}, "pQueue": ONE}
    infos = [submit_info([], [])]
    submitted: dict[str, Any] = {"queue": ONE, "submitCount": 1, "pSubmits": infos, "fence": 0}

    def pass_(name: str, *, flags: int = 0, stream: int = RING, **parameters: Any) -> int:
        record = record_of(name, flags, stream, **parameters)
        if not name.endswith("MESA"):
            known.note(decode(0, record))
        known.passed(record)
        return len(CODEC.encode(name, parameters))

    pass_("vkCreateRingMESA", stream=0, ring=RING, pCreateInfo={})
    place = pass_("vkGetDeviceQueue2", **named)
    place += pass_("vkQueueSubmit", **submitted)
    # It is asked for before the second submission, and waits for that.
    known.fence(1, 1)
    pass_("vkQueueSubmit", flags=NESTED, **submitted)
    later = len(CODEC.encode("vkQueueSubmit", submitted))
    pass_("vkWaitRingSeqnoMESA", stream=0, ring=RING, seqno=place + later)
    known.fence(1, 2)
    known.fence(0, 3)
    pass_("vkQueueSubmit", **submitted)
    known.retired(0, 3)
    known.retired(1, 1)
    assert not known.is_all
    known.retired(1, 2)
    assert known.is_all
    # One that was through before its ring had come there was not of that ring's work.
    pass_("vkWaitRingSeqnoMESA", stream=0, ring=RING, seqno=place + 3 * later)
    known.fence(1, 4)
    pass_("vkQueueSubmit", **submitted)
    known.retired(1, 4)
    assert not known.is_all


def test_where_a_rings_beginning_is_not_there_fences_say_nothing() -> None:
    known = Known()
    chain = [("VkDeviceQueueTimelineInfoMESA", {"ringIdx": 1})]
    named: dict[str, Any] = {"device": 3, "pQueueInfo": {"pNext": chain}, "pQueue": ONE}
    record = record_of("vkGetDeviceQueue2", EARLIER, RING, **named)
    known.note(decode(0, record))
    known.passed(record)
    known.note(submit(ONE))
    known.fence(1, 1)
    known.retired(1, 1)
    assert not known.is_all


def test_slow_work_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "PATIENCE", 0.0)
    monkeypatch.setattr(settling, "IMPATIENCE", 0.0)
    path = tmp_path / "slow.hesper"
    recorder = record_to(path)
    copier = Copier(recorder, 16 << 20)
    for seed in range(3):
        copier.copy(bytes([seed + 1]) * copier.size)
    copier.close()
    recorder.close()
    outcome = replay(path, verify=True)
    assert (outcome.fatal, outcome.submissions, outcome.stuck) == ("", 3, 0)
    assert outcome.pages_other == 0


def test_what_waits_for_what_comes_later_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "later.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    guest = copier.guest
    info = {"semaphoreType": VK_SEMAPHORE_TYPE_TIMELINE, "initialValue": 0}
    counting = guest.create("Semaphore", {"pNext": [("VkSemaphoreTypeCreateInfo", info)]})
    infos = [submit_info([(counting, 1)], [])]
    guest.ask("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=infos, fence=0)
    # What it has to be through for.
    guest.create("Buffer", {"size": SIZE, "usage": 1})
    guest.send(
        "vkDestroyBuffer", device=DEVICE, buffer=guest.create("Buffer", {"size": 1, "usage": 1})
    )
    signal = {"semaphore": counting, "value": 1}
    guest.ask("vkSignalSemaphore", device=DEVICE, pSignalInfo=signal)
    guest.wait_for_queue()
    copier.copy(b"\1" * SIZE)
    copier.close()
    recorder.close()
    outcome = replay(path, verify=True)
    assert (outcome.fatal, outcome.submissions, outcome.stuck) == ("", 2, 1)
    assert (outcome.pages_other, outcome.results_other) == (0, 0)


def test_what_a_guest_writes_over_what_the_device_wrote_is_the_guests(tmp_path: Path) -> None:
    path = tmp_path / "over.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    copier.copy(b"\1" * SIZE)
    copier.blobs[1].view[: SIZE // 2] = b"\3" * (SIZE // 2)
    # Of the other half the device writes a quarter, from where the guest has written.
    copier.guest.ask("vkBeginCommandBuffer", commandBuffer=copier.commands, pBeginInfo={})
    copier.guest.send(
        "vkCmdCopyBuffer",
        commandBuffer=copier.commands,
        srcBuffer=copier.buffers[1],
        dstBuffer=copier.buffers[1],
        regionCount=1,
        pRegions=[{"size": SIZE // 4, "dstOffset": SIZE // 2}],
    )
    copier.guest.ask("vkEndCommandBuffer", commandBuffer=copier.commands)
    assert copier.copy(b"\1" * SIZE)[SIZE // 2 : SIZE // 2 + 1] == b"\3"
    copier.close()
    recorder.close()
    outcome = replay(path, verify=True)
    assert (outcome.fatal, outcome.submissions, outcome.pages_other) == ("", 2, 0)
    assert outcome.pages_replaced == SIZE // 2 // 4096
