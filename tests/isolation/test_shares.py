"""The GPU's time: by weights, given away where it is not used, and no liar takes it from others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from simulated_gpu import Client, Gpu

from hesper.isolation.sharer import HELD, MEASURE, SINCE, TOLD, USED, WAKE, Sharer
from hesper.isolation.shares import LEAD

MS = 1_000_000


def close(gpu: Gpu) -> None:
    for client in gpu.clients:
        client.words.release()
    gpu.shares.close()


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    one = Gpu()
    yield one
    close(one)


@pytest.fixture
def in_order() -> Iterator[Gpu]:
    """One that finishes what it has begun."""
    one = Gpu(slices=False)
    yield one
    close(one)


def shares(gpu: Gpu, seconds: float = 4.0) -> list[float]:
    """What each client gets of what all get, after a while in which they find their feet."""
    gpu.run(0.5)
    before = [client.got for client in gpu.clients]
    gpu.run(seconds)
    got = [client.got - had for client, had in zip(gpu.clients, before, strict=True)]
    return [each / sum(got) for each in got]


def test_who_is_alone_is_told_nothing(gpu: Gpu) -> None:
    one = gpu.enter(Client("a", 5 * MS))
    gpu.run(1.0)
    assert one.words[TOLD] == 0
    assert (one.words[USED], gpu.looks, one.waited) == (0, 0, 0)


def test_eight_get_the_same(gpu: Gpu) -> None:
    for i in range(8):
        gpu.enter(Client(str(i), (3 + i) * MS))
    got = shares(gpu)
    assert min(got) > 0.9 / 8
    assert max(got) < 1.1 / 8


@pytest.mark.parametrize("by_processor", [True, False])
def test_who_has_luck_with_the_processors_is_charged_for_it(gpu: Gpu, by_processor: bool) -> None:
    """Others take the processors from one and not from another; fences cannot tell."""
    for i in range(8):
        gpu.enter(Client(str(i), 8 * MS, luck=0.5 if i % 2 else 1.5))
    gpu.shares.by_processor = by_processor
    got = shares(gpu, 8.0)
    assert (min(got) > 0.95 / 8 and max(got) < 1.05 / 8) == by_processor


@pytest.mark.parametrize("weight", [1, 4])
def test_weights_count_by_processors(gpu: Gpu, weight: int) -> None:
    gpu.enter(Client("heavy", 4 * MS, luck=0.4), weight)
    gpu.enter(Client("light", 4 * MS))
    gpu.shares.by_processor = True
    heavy, light = shares(gpu, 8.0)
    assert heavy / light == pytest.approx(weight, rel=0.15)


def test_small_work_without_an_end_gets_no_more(gpu: Gpu) -> None:
    gpu.enter(Client("small", MS // 5))
    gpu.enter(Client("large", 20 * MS))
    got = shares(gpu)
    assert got[0] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("weight", [2, 4, 10])
def test_weights_count(gpu: Gpu, weight: int) -> None:
    gpu.enter(Client("heavy", 4 * MS), weight)
    gpu.enter(Client("light", 4 * MS))
    heavy, light = shares(gpu, 8.0)
    assert heavy / light == pytest.approx(weight, rel=0.15)


def test_weights_count_where_nothing_is_interrupted(in_order: Gpu) -> None:
    in_order.enter(Client("heavy", 7_500_000, rest=MS // 5), 4)
    in_order.enter(Client("light", 7_500_000, rest=MS // 5))
    heavy, light = shares(in_order, 8.0)
    assert heavy / light == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("jobs", [(2, 20), (1, 30), (3, 4, 5, 6, 7, 8), (20, 30, 40)])
@pytest.mark.parametrize("slices", [True, False])
def test_who_submits_more_at_a_time_gets_no_more(slices: bool, jobs: tuple[int, ...]) -> None:
    gpu = Gpu(slices=slices)
    for i, job in enumerate(jobs):
        gpu.enter(Client(str(i), job * MS, rest=MS // 10))
    got = shares(gpu, 4.0)
    assert min(got) > 0.9 / len(jobs)
    assert max(got) < 1.1 / len(jobs)
    close(gpu)


@pytest.mark.parametrize("late", [0.09, 0.15, 0.4])
@pytest.mark.parametrize("by_processor", [True, False])
def test_nobody_starves_where_looks_are_late(gpu: Gpu, by_processor: bool, late: float) -> None:
    """As on a machine of which others have nearly all: somebody always works, somebody waits."""
    gpu.shares.by_processor = by_processor
    gpu.late = late
    for i in range(3):
        gpu.enter(Client(str(i), 5 * MS, rest=MS // 10))
    assert min(shares(gpu, 10.0)) > 0.8 / 3


@pytest.mark.parametrize("late", [0.09, 0.15, 0.4])
def test_weights_count_where_looks_are_late(gpu: Gpu, late: float) -> None:
    gpu.late = late
    gpu.enter(Client("heavy", 5 * MS, rest=MS // 10), 4)
    gpu.enter(Client("light", 5 * MS, rest=MS // 10))
    heavy, light = shares(gpu, 10.0)
    assert heavy / light == pytest.approx(4, rel=0.2)


def test_who_begins_as_nobody_looks_any_more_is_seen(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been told to wake nobody, and one that always has work never begins again."""
    gpu.enter(Client("a", 5 * MS))
    other = gpu.enter(Client("b", 1000 * MS, rest=1000 * MS))
    other.idle_until = gpu.now
    gpu.run(0.1)
    assert gpu.shares.is_awake
    other.left, other.words[SINCE], other.idle_until = 0, 0, gpu.now + 3600 * 1000 * MS
    tell = Sharer.tell

    def begin_first(sharer: Sharer, told: int, now: int = 0) -> None:
        if told & WAKE:
            other.left, other.words[SINCE] = other.job, gpu.now
        tell(sharer, told, now)

    monkeypatch.setattr(Sharer, "tell", begin_first)
    gpu.run(0.5)
    assert other.left > 0
    assert gpu.shares.is_awake


def test_what_one_does_not_use_is_given_away(gpu: Gpu) -> None:
    gpu.enter(Client("rests", 2 * MS, rest=198 * MS), 10)
    gpu.enter(Client("a", 5 * MS))
    gpu.enter(Client("b", 5 * MS))
    rests, a, b = shares(gpu)
    assert rests < 0.02
    assert a == pytest.approx(b, rel=0.1)
    assert gpu.clients[0].waited == 0


def test_nobody_saves_up(gpu: Gpu) -> None:
    """Who has rested for long does not keep the others waiting for what it did not use."""
    late = gpu.enter(Client("late", 5 * MS))
    late.idle_until = gpu.now + 3_000 * MS
    gpu.enter(Client("early", 5 * MS))
    gpu.run(3.5)
    assert late.got > 0
    before = gpu.clients[1].got
    gpu.run(0.5)
    assert gpu.clients[1].got - before > 0.2e9


def test_a_light_client_never_waits(gpu: Gpu) -> None:
    light = gpu.enter(Client("light", MS, rest=15 * MS))
    for i in range(7):
        gpu.enter(Client(str(i), 6 * MS))
    gpu.run(3.0)
    assert light.waited == 0
    assert light.got > 3.0e9 / 40 / 2
    others = [client.got for client in gpu.clients[1:]]
    assert min(others) > 0.9 * max(others)


@pytest.mark.parametrize("lights", [1, 3])
@pytest.mark.parametrize("job", [2, 8, 20])
def test_a_light_client_waits_for_one_of_the_others(in_order: Gpu, job: int, lights: int) -> None:
    """Where nothing is interrupted: for what is at work, and not for those that wait as it does."""
    light = [in_order.enter(Client(f"light {i}", MS // 2, rest=15 * MS)) for i in range(lights)]
    heavy = [in_order.enter(Client(str(i), job * MS, rest=MS // 5)) for i in range(7)]
    in_order.run(1.0)
    before = [client.got for client in heavy]
    for client in light:
        client.latencies.clear()
    in_order.run(4.0)
    for client in light:
        longest = sorted(client.latencies)[len(client.latencies) * 99 // 100]
        assert longest <= job * MS + lights * MS // 2 + MS
    got = [client.got - had for client, had in zip(heavy, before, strict=True)]
    assert min(got) > 0.85 * max(got)
    # It costs what there is no work at hand for when one is through, and the light ones' part.
    assert sum(got) > (0.85 if job < 8 else 0.9) * 4.0e9


def test_who_begins_together_after_a_rest_is_told_apart_soon(in_order: Gpu) -> None:
    """Programs get ready, one after the other, and then all begin: one round is in the way."""
    light = in_order.enter(Client("light", MS // 2, rest=15 * MS))
    heavy = [in_order.enter(Client(str(i), 8 * MS, rest=MS // 5)) for i in range(7)]
    in_order.run(0.2)
    for client in (light, *heavy):
        client.idle_until = in_order.now + 100 * MS
    in_order.run(0.1)
    light.latencies.clear()
    in_order.run(1.0)
    assert sum(each > 10 * MS for each in light.latencies) <= 2


def test_nobody_looks_where_one_works(gpu: Gpu) -> None:
    gpu.enter(Client("works", 5 * MS))
    gpu.enter(Client("rests", MS, rest=1 << 62))
    gpu.run(1.0)
    before = gpu.looks
    gpu.run(2.0)
    assert gpu.looks == before
    assert gpu.clients[0].words[TOLD] == MEASURE
    assert gpu.clients[1].words[TOLD] == MEASURE | WAKE


def test_who_stays_goes_on_alone(gpu: Gpu) -> None:
    one = gpu.enter(Client("stays", 5 * MS))
    other = gpu.enter(Client("leaves", 5 * MS))
    gpu.run(0.5)
    gpu.leave(other)
    assert one.words[TOLD] == 0
    before = one.got
    gpu.run(1.0)
    assert one.got - before > 0.95e9


def claims_nothing(_client: Client, words: memoryview, _now: int) -> None:
    words[USED] = words[SINCE] = 0


def claims_to_wait(_client: Client, words: memoryview, _now: int) -> None:
    words[HELD] = 1
    words[SINCE] = words[USED] = 0


def claims_the_world(_client: Client, words: memoryview, now: int) -> None:
    words[USED] = now * now & 0xFFFFFFFFFFFFFFFF
    words[SINCE] = 1


def flickers(_client: Client, words: memoryview, now: int) -> None:
    words[HELD] = now >> 20 & 1
    words[SINCE] = now if now >> 21 & 1 else 0
    words[TOLD] = 0


@pytest.mark.parametrize("lie", [claims_to_wait, claims_the_world, flickers])
def test_a_liar_keeps_nobody_waiting(gpu: Gpu, lie: object) -> None:
    """One that does not use the GPU, and says what it likes: the others get what there is."""
    gpu.enter(Client("liar", 1, rest=1 << 62, lies=lie))  # type: ignore[arg-type]
    gpu.enter(Client("a", 5 * MS))
    gpu.enter(Client("b", 5 * MS))
    gpu.run(0.5)
    before = [client.got for client in gpu.clients]
    gpu.run(3.0)
    liar, a, b = (c.got - had for c, had in zip(gpu.clients, before, strict=True))
    assert liar == 0
    assert a + b > 0.9 * 3.0e9
    assert a == pytest.approx(b, rel=0.1)


def test_what_is_claimed_is_bounded_by_time(gpu: Gpu) -> None:
    gpu.enter(Client("liar", 1, rest=1 << 62, lies=claims_the_world))
    gpu.enter(Client("a", 5 * MS))
    gpu.run(2.0)
    assert gpu.shares.charged("liar") <= 2.0
    assert gpu.shares.charged("a") + gpu.shares.charged("liar") <= 2.0


def test_who_says_nothing_takes_no_more_than_the_driver_gives(gpu: Gpu) -> None:
    """It could have submitted without asking: half of the GPU is what it gets beside one other."""
    gpu.enter(Client("liar", 5 * MS, lies=claims_nothing))
    gpu.enter(Client("a", 5 * MS))
    liar, honest = shares(gpu)
    assert honest > 0.45
    assert liar < 0.55


def test_the_lead_is_bounded(gpu: Gpu) -> None:
    """Nobody is held for long: with equal weights, no longer than the others' turns take."""
    for i in range(4):
        gpu.enter(Client(str(i), MS))
    gpu.run(2.0)
    one = gpu.clients[0]
    longest, before, held = 0, one.waited, 0
    for _ in range(2000):
        gpu.run(0.001)
        held = held + 1 if one.waited > before else 0
        before, longest = one.waited, max(longest, held)
    assert longest <= 4 * LEAD * 2 / MS
