"""Threads that want the same thing at the same time wait for it once, also if it fails."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.shared_call import SharedCall
from tests.servers import eventually

THREADS = 8


@pytest.mark.parametrize("fails", [False, True])
def test_threads_that_come_meanwhile_share_what_comes_of_it(fails):
    calls: list[int] = []
    go_on = threading.Event()

    def ask():
        calls.append(1)
        assert go_on.wait(10)
        if fails:
            raise LookupError
        return len(calls)

    shared = SharedCall(ask)
    called = threading.Semaphore(0)

    def come():
        called.release()
        return shared()

    with ThreadPoolExecutor(THREADS) as threads:
        first = threads.submit(shared)
        eventually(lambda: calls)
        others = [threads.submit(come) for _ in range(THREADS - 1)]
        for _ in others:
            assert called.acquire(timeout=10)
        go_on.set()
        outcomes = [future.exception(10) or future.result() for future in (first, *others)]

    if fails:
        assert {type(outcome) for outcome in outcomes} == {LookupError}
    assert len(calls) < THREADS  # a thread may come when the first call is over


def test_it_is_called_again_for_who_comes_later():
    calls: list[int] = []
    shared = SharedCall(lambda: calls.append(1))
    shared()
    shared()
    assert len(calls) == 2
