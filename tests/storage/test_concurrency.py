"""Many at once: nothing lost, nothing twice, and no error reaches a caller."""

from __future__ import annotations

import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from threading import Barrier
from typing import Any

import pytest

from queues.errors import ClaimNotFound, ClaimNotHeld, MessageClaimed
from queues.models import DeadLetter, Record
from tests.storage.probe import bodies, ids
from tests.storage.variants import over_shared_and_mixed
from tests.storage.workers import BATCH, PATIENCE, Findings, Holding, Load, run, work

THREADS = 8


def together(act: Callable[[int], Any]) -> list[Any]:
    """Let threads act at the same moment, each with its number; return what they return."""
    start = Barrier(THREADS)

    def begin(number: int) -> Any:
        start.wait(timeout=30)
        return act(number)

    with ThreadPoolExecutor(THREADS) as threads:
        return [f.result(timeout=60) for f in [threads.submit(begin, n) for n in range(THREADS)]]


def judge(load: Load, findings: list[Findings]) -> None:
    """Check what the workers of all processes saw."""
    posted = [id_ for each in findings for id_ in each.posted]
    logged = [id_ for each in findings for id_ in each.logged]
    assert len(set(posted)) == len(set(logged)) == load.messages

    held: dict[str, list[Holding]] = defaultdict(list)
    for holding in (holding for each in findings for holding in each.held):
        held[holding.message_id].append(holding)
    popped = [id_ for each in findings for id_ in each.popped]
    deleted = [h.message_id for holdings in held.values() for h in holdings if not h.released]
    assert sorted([*popped, *deleted]) == sorted(posted), "each leaves once, by one holder"

    for holdings in held.values():
        holdings.sort(key=lambda holding: holding.since)
        assert [holding.count for holding in holdings] == list(range(1, len(holdings) + 1))
        for one, other in pairwise(holdings):
            assert one.until <= other.since, "two live claims on one message"

    assert [id_ for each in findings for id_ in each.torn] == []
    readings = [reading for each in findings for reading in each.read]
    assert len(readings) == load.processes
    for reading in readings:
        assert ids(reading) == sorted(logged), "without gap or repeat, in order"
        by_producer = defaultdict(list)
        for body in bodies(reading):
            producer, batch, index = body.strip('"').split("/")
            by_producer[producer].append((int(batch), int(index)))
        in_order = [(batch, index) for batch in range(load.batches) for index in range(BATCH)]
        assert all(order == in_order for order in by_producer.values())
        assert len(by_producer) == load.processes * load.producers


@over_shared_and_mixed
@pytest.mark.timeout(4 * PATIENCE)
def test_c5_c6_processes_that_share_a_store_lose_nothing_and_share_nothing(variant, uri):
    load = Load(uri=uri, processes=4, batches=variant.batches)
    with multiprocessing.get_context("spawn").Pool(load.processes) as pool:
        findings = pool.starmap_async(run, [(load, n) for n in range(load.processes)], chunksize=1).get(
            timeout=3 * PATIENCE
        )

    judge(load, findings)


def test_c5_c6_threads_that_share_a_store_lose_nothing_and_share_nothing(queue, uri):
    load = Load(uri=uri, processes=1, batches=50)

    judge(load, [work(queue.store, load, 0)])


def test_c1_competing_claims_are_all_full_while_there_are_messages(queue):
    posted = queue.fill(160)

    claims = [claim for part in together(lambda _: [queue.claim(5) for _ in range(4)]) for claim in part]

    assert [len(claim.messages) for claim in claims] == [5] * 32
    assert sorted(id_ for claim in claims for id_ in ids(claim.messages)) == list(posted)
    assert queue.counts() == (0, 160, 160)


def test_b9_no_message_is_seen_in_a_claim_that_cannot_be_read(queue):
    posted = queue.fill(120)

    def claim_or_watch(number: int) -> int:
        if number < THREADS // 2:
            return sum(len(queue.claim(3).messages) for _ in range(10))
        watched = 0
        while watched < len(posted):
            holders = {m.id: m.claim_id for m in queue.everything() if m.claim_id is not None}
            watched = len(holders)
            for claim_id in set(list(holders.values())[-3:]):
                inside = ids(queue.read_claim(claim_id).messages)
                assert {id_ for id_, holder in holders.items() if holder == claim_id} == set(inside)
        return 0

    assert sum(together(claim_or_watch)) == len(posted)


def test_b10_competing_pops_never_return_the_same_message(queue):
    posted = queue.fill(160)

    popped = [id_ for part in together(lambda _: [ids(queue.pop(5)) for _ in range(4)]) for id_ in part]

    assert sorted(id_ for part in popped for id_ in part) == list(posted)
    assert queue.counts() == (0, 0, 0)


def test_p10_of_many_posts_with_one_key_one_is_stored(queue):
    answers = together(lambda _: queue.post_once("a", "b"))

    assert {tuple(answer.ids) for answer in answers} == {tuple(ids(queue.everything()))}
    assert Counter(answer.repeated for answer in answers) == {False: 1, True: THREADS - 1}
    assert bodies(queue.everything()) == ["a", "b"]


def test_of_many_deletions_by_the_holder_all_succeed_and_one_counts(queue):
    queue.fill(3)
    claim = queue.claim(2)

    together(lambda _: [queue.delete(message.id, claim.id) for message in claim.messages])

    assert queue.counts() == (1, 0, 1)


def test_p3_an_ended_claim_never_deletes_what_others_hold(queue):
    queue.fill(4)

    def work_with_stale_claims(_: int) -> None:
        for _ in range(10):
            claim = queue.try_claim(2).claim
            if claim is None:
                continue
            queue.release(claim.id)
            for message in claim.messages:
                with suppress(MessageClaimed, ClaimNotHeld):
                    queue.delete(message.id, claim.id)
                    pytest.fail("a released claim deleted a message")
            with suppress(ClaimNotFound):
                queue.renew(claim.id)
                pytest.fail("a released claim was renewed")

    together(work_with_stale_claims)

    assert queue.counts() == (4, 0, 4)
    assert bodies(queue.everything()) == ["1", "2", "3", "4"]


def test_b11_competing_claims_move_each_worn_message_once(queue):
    dead = queue.other("queue>dead")
    queue.fill(40)
    queue.release(queue.claim(40).id)
    letter = DeadLetter(address=dead.address, max_claims=1)

    moved = together(lambda _: queue.try_claim(2, dead_letter=letter).dead_lettered)

    assert sum(moved) == 40
    assert queue.everything() == []
    assert bodies(dead.everything()) == [str(number) for number in range(1, 41)]


def test_reclaiming_disturbs_nobody(queue):
    queue.fill(100, ttl=60)
    for _ in range(5):
        queue.other("gone").fill(20)
        queue.other("gone").drop()
    queue.clock.advance(60)
    kept = queue.fill(20)

    def reclaim_or_look(number: int) -> None:
        if number % 2:
            while queue.expire(limit=7):
                pass
        for _ in range(20):
            assert ids(queue.everything()) == list(kept)
            assert queue.counts() == (20, 0, 20)

    together(reclaim_or_look)

    assert queue.expire() == 0


def test_a_queue_is_created_once_however_many_post_first(queue):
    posted = together(lambda number: queue.post(str(number)))

    assert sorted(id_ for part in posted for id_ in part) == ids(queue.everything())
    assert queue.counts() == (THREADS, 0, THREADS)


def test_of_many_inserts_of_one_record_one_is_new(driver):
    def insert(number: int) -> bool:
        record = Record(kind="queue", scope="p", name="n", data={"by": number})
        return bool(driver.records.insert(record))

    answers = together(insert)

    assert answers.count(True) == 1
    assert driver.records.fetch("queue", "p", "n").data == {"by": answers.index(True)}


def test_d9_concurrent_changes_of_a_record_lose_no_update(driver):
    driver.records.insert(Record(kind="queue", scope="p", name="n", data={"count": 0}))

    def count(_: int) -> None:
        for _ in range(5):
            while True:
                record = driver.records.fetch("queue", "p", "n")
                if driver.records.replace(replace(record, data={"count": record.data["count"] + 1})):
                    break

    together(count)

    record = driver.records.fetch("queue", "p", "n")
    assert (record.data, record.revision) == ({"count": 5 * THREADS}, 5 * THREADS)
