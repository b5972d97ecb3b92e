"""Group commit by itself: who is taken along."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from storage.group_commit import GROUP, GroupCommit, Job
from tests.servers import eventually

Take = Callable[[], Sequence[Job[None, object]]]


def test_a_group_takes_along_who_comes_while_it_begins_anew_but_no_more_than_fit():
    begun, go_on = threading.Event(), threading.Event()
    sizes: list[int] = []

    def commit(take: Take) -> None:
        jobs = take()
        if not begun.is_set():
            begun.set()
            assert go_on.wait(10)
            jobs = take()
        sizes.append(len(jobs))
        for job in jobs:
            assert job.start()
            job.value = job.step(None)

    writers = GroupCommit(commit, timeout=10)
    with ThreadPoolExecutor(GROUP + 10) as pool:
        first = pool.submit(writers.run, lambda _: -1)
        assert begun.wait(10)
        rest = [pool.submit(writers.run, lambda _, number=number: number) for number in range(GROUP + 9)]
        eventually(lambda: writers.waiting == GROUP + 9)
        go_on.set()
        assert first.result(10) == -1
        assert [each.result(10) for each in rest] == list(range(GROUP + 9))

    assert sizes == [GROUP, 10]
