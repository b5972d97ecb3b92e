"""Those who find all hands busy: how many may stand in line, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from queues.errors import Overloaded
from queues.service.waiting import WaitingRoom

PATIENCE = 15.0  # seconds until a test gives up


def room(**bounds: Any) -> WaitingRoom:
    catalogue: Any = None  # nobody waits for messages here
    return WaitingRoom(catalogue, seats=0, hands=1, **bounds)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


@contextmanager
def in_line(place: WaitingRoom, count: int) -> Iterator[list[str]]:
    """Have so many stand in line; what became of each is noted when they are through."""
    ends: list[str] = []

    def stand() -> None:
        try:
            with place.busy():
                ends.append("served")
        except Overloaded:
            ends.append("refused")

    threads = [threading.Thread(target=stand, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: place._standing + len(ends) == count)
    yield ends
    for thread in threads:
        thread.join(PATIENCE)


def test_who_finds_the_line_too_long_is_refused_at_once_and_the_others_are_served() -> None:
    place = room(backlog=3)
    with ExitStack() as busy:
        busy.enter_context(place.busy())
        with in_line(place, 3) as ends:
            before = time.monotonic()
            with pytest.raises(Overloaded), place.busy():
                pass
            assert time.monotonic() - before < 1
            assert ends == []
            busy.close()
    assert ends == ["served"] * 3
    with place.busy():
        assert place._standing == 0


def test_without_a_line_whoever_finds_all_hands_busy_is_refused() -> None:
    place = room(backlog=0)
    with place.busy(), pytest.raises(Overloaded), place.busy():
        pass
    with place.busy():
        pass


def test_who_stands_in_line_for_too_long_is_refused() -> None:
    place = room(patience=0.05)
    with place.busy(), in_line(place, 5) as ends:
        until(lambda: len(ends) == 5)
    assert ends == ["refused"] * 5
    assert place._standing == 0
    with place.busy():
        pass


def test_a_hand_is_given_back_by_work_that_fails() -> None:
    place = room(backlog=0)
    for _ in range(3):
        with pytest.raises(KeyError), place.busy():
            raise KeyError
