"""A look at the server's clock over a slow network is worth less than the one before."""

from __future__ import annotations

import time

import pytest

from storage.server_clock import ServerClock


class Network:
    """A server whose clock goes right, and the way to it; `monotonic` is the clock of this machine."""

    def __init__(self) -> None:
        self.now = 100.0  # seconds
        self.ahead = 1_000_000.0  # of the server's clock
        self.there = self.back = 0.001  # seconds on the way
        self.connecting = 0.0  # seconds until the first question can be sent

    def monotonic(self) -> float:
        return self.now

    def ask(self) -> float:
        self.now += self.connecting + self.there
        self.connecting = 0.0
        told = self.now + self.ahead
        self.now += self.back
        return told

    def error(self, clock: ServerClock) -> float:
        """Return by how many seconds the clock is ahead of the server's."""
        told = clock() / 1000
        return told - (self.now + self.ahead)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(time, "monotonic", made.monotonic)
    return made


@pytest.mark.parametrize(("there", "back"), [(2.0, 0.001), (0.001, 2.0)])
def test_a_slow_way_in_one_direction_does_not_move_the_clock(
    network: Network, there: float, back: float
) -> None:
    clock = ServerClock(network.ask)
    assert network.error(clock) == pytest.approx(0, abs=0.01)
    network.there, network.back = there, back
    for _ in range(3):
        network.now += 1.5
        assert network.error(clock) == pytest.approx(0, abs=0.01)


def test_a_clock_that_began_on_a_slow_way_is_right_when_the_way_is_fast(network: Network) -> None:
    network.there = 2.0
    clock = ServerClock(network.ask)
    assert network.error(clock) == pytest.approx(1, abs=0.01)  # half of the way is the best guess
    network.there = 0.001
    network.now += 1.5
    assert network.error(clock) == pytest.approx(0, abs=0.01)


def test_the_time_that_connecting_takes_does_not_move_the_clock(network: Network) -> None:
    network.connecting = 2.0
    assert network.error(ServerClock(network.ask)) == pytest.approx(0, abs=0.01)


def test_a_server_whose_clock_was_set_is_followed(network: Network) -> None:
    clock = ServerClock(network.ask)
    clock()
    for change in (-60, 120):
        network.ahead += change
        network.now += 1.5
        assert network.error(clock) == pytest.approx(0, abs=0.01)


def test_the_server_is_asked_once_a_second(network: Network) -> None:
    clock = ServerClock(network.ask)
    clock()
    asked = network.now
    network.now += 0.9
    clock()
    assert network.now == asked + 0.9
