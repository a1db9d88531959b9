"""When input goes to a guest: no guest is booted."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hesper.display.input import Button, InputEvent, Key, PointerButton, PointerMove
from hesper.vm.pacing import E0_PRESS_SECONDS, MAX_WAITING, PRESS_SECONDS, Pacing

EVENTS = st.one_of(
    st.builds(Key, st.integers(1, 120), st.booleans()),
    st.builds(PointerButton, st.sampled_from(Button), st.booleans()),
    st.builds(PointerMove, st.integers(0, 100), st.integers(0, 100)),
)


def all_of(pacing: Pacing) -> list[tuple[int, InputEvent]]:
    taken = []
    while pacing:
        index, events, _ = pacing.take()
        taken += [(index, event) for event in events]
    return taken


@given(st.lists(st.tuples(st.integers(0, 1), st.lists(EVENTS, max_size=5)), max_size=30))
def test_all_presses_come_in_order_and_the_pointer_is_where_it_was(
    sent: list[tuple[int, list[InputEvent]]],
) -> None:
    pacing = Pacing()
    for index, events in sent:
        assert pacing.add(index, events) == 0
    flat = [(index, event) for index, events in sent for event in events]
    # Of moves one after another the last counts.
    wanted = [
        each
        for each, after in itertools.pairwise([*flat, (0, None)])
        if not (isinstance(each[1], PointerMove) and isinstance(after[1], PointerMove))
    ]
    assert all_of(pacing) == wanted


def test_each_key_and_button_has_its_time() -> None:
    pacing = Pacing()
    at = PointerMove(1, 2)
    click: list[InputEvent] = [
        at,
        PointerButton(Button.LEFT, True),
        PointerButton(Button.LEFT, False),
        at,
    ]
    pacing.add(0, [Key(30, True), Key(30, False), Key(103, True), *click])
    pacing.add(1, [PointerButton(Button.RIGHT, True)])
    assert [pacing.take() for _ in range(7)] == [
        (0, [Key(30, True)], PRESS_SECONDS),
        (0, [Key(30, False)], PRESS_SECONDS),
        (0, [Key(103, True)], E0_PRESS_SECONDS),
        (0, [at, PointerButton(Button.LEFT, True)], PRESS_SECONDS),
        (0, [PointerButton(Button.LEFT, False)], PRESS_SECONDS),
        (0, [at], 0.0),
        (1, [PointerButton(Button.RIGHT, True)], PRESS_SECONDS),
    ]
    assert not pacing


def test_where_there_is_no_room_nothing_stays_down() -> None:
    pacing = Pacing()
    pacing.add(0, [Key(42, True)])
    lost = sum(pacing.add(0, [Key(30, True), Key(30, False)]) for _ in range(MAX_WAITING))
    lost += pacing.add(0, [PointerButton(Button.LEFT, True), PointerMove(3, 3)])
    assert lost > MAX_WAITING // 2
    pacing.add(0, [Key(42, False), PointerButton(Button.LEFT, False)])
    down: set[object] = set()
    for _, event in all_of(pacing):
        if isinstance(event, PointerMove):
            continue
        which = event.code if isinstance(event, Key) else event.button
        (down.add if event.down else down.remove)(which)
    assert down == set()
    pacing.add(0, [Key(30, True)])
    assert all_of(pacing) == [(0, Key(30, True))]


def test_what_is_down_when_all_ends_is_let_go() -> None:
    pacing = Pacing()
    pacing.add(0, [Key(42, True), Key(30, True), Key(30, False)])
    pacing.add(1, [PointerButton(Button.LEFT, True), Key(31, True)])
    for _ in range(4):
        pacing.take()
    assert pacing.let_go() == [(0, Key(42, False)), (1, PointerButton(Button.LEFT, False))]
    assert not pacing
    assert pacing.let_go() == []
