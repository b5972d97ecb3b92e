"""Many consumers on one queue: every claim is full while there are messages, and in order (P3, P5, P6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from queues.models import Lease, NewMessage
from tests.storage.contenders import (
    BATCH,
    LIMIT,
    PATIENCE,
    QUEUE,
    Seen,
    Taken,
    consumers,
    deleting_reader,
    flat,
    in_processes,
    in_threads,
    producers,
    readers,
)
from tests.storage.variants import over_shared

PROCESSES, THREADS = 4, 2

pytestmark = [over_shared, pytest.mark.timeout(4 * PATIENCE)]


@pytest.fixture
def messages(variant) -> int:
    """How many there are to compete for; the last claim gets fewer than the others."""
    return 20 * int(variant.batches) + 3


def fill(uri: str, count: int) -> list[str]:
    """Post so many messages, release half of them, and return the ids."""
    return flat(in_threads(uri, 1, lambda store, _: _fill(store, count)))


def _fill(store: Any, count: int) -> list[str]:
    batch = [NewMessage(body=b'"x"', ttl=3600)] * count
    posted = list(store.post(QUEUE, batch, now=store.clock(), create=True).ids)
    for _ in range(2):  # what is released returns to its place
        claim = store.claim(QUEUE, Lease(ttl=3600, grace=60, limit=count // 2), now=store.clock()).claim
        store.release(QUEUE, claim.id, now=store.clock())
    return posted


def judge_claims(posted: Sequence[str], taken: Sequence[Taken]) -> None:
    """Check what all consumers together got."""
    got = [each for each in taken if each.ids]
    assert sorted(flat([each.ids for each in got])) == list(posted), "each message is claimed once"
    assert len({each.claim_id for each in got}) == len(got)
    for each in got:
        assert list(each.ids) == sorted(each.ids), "the order within a claim"

    exhausted = min(each.ended for each in taken if len(each.ids) < LIMIT)
    late = [each for each in got if each.began > exhausted]
    assert late == [], "a claim came back empty, or short, while messages were free"

    # Whoever asks when another has been answered gets what comes behind.
    by_end = sorted(got, key=lambda each: each.ended)
    for each in got:
        before = [other.ids[-1] for other in by_end if other.ended < each.began]
        assert max(before, default="") < each.ids[0], "the order over all claims"


def judge_reading(batches: Sequence[Sequence[str]], seen: Seen) -> None:
    """Check that a reader saw everything, once and in order."""
    assert list(seen.ids) == sorted(flat(batches)), "without gap or repeat"
    places = {id_: place for place, id_ in enumerate(seen.ids)}
    for batch in batches:
        assert [places[id_] - places[batch[0]] for id_ in batch] == list(range(BATCH)), (
            "a batch is in one piece"
        )


def test_c1_threads_get_full_claims_until_there_is_nothing(uri: str, messages: int) -> None:
    posted = fill(uri, messages)

    taken = flat(consumers(uri, PROCESSES * THREADS))

    judge_claims(posted, taken)


def test_c1_processes_get_full_claims_until_there_is_nothing(uri: str, messages: int) -> None:
    posted = fill(uri, messages)

    taken = in_processes(*[(consumers, (uri, THREADS))] * PROCESSES)

    judge_claims(posted, flat(flat(taken)))
    assert sum(any(each.ids for each in flat(process)) for process in taken) > 1, "they did not compete"


def test_c5_readers_who_follow_the_markers_miss_nothing(variant, uri: str) -> None:
    batches = int(variant.batches)
    total = 2 * THREADS * batches * BATCH

    *posted, seen = in_processes(
        (producers, (uri, 0, THREADS, batches)),
        (producers, (uri, 1, THREADS, batches)),
        (readers, (uri, THREADS, total)),
    )

    posts = flat(flat(posted))
    for each in seen:
        judge_reading(posts, each)
    for producer in flat(posted):
        assert all(one[-1] < other[0] for one, other in pairwise(producer)), "each producer's own order"


def test_b5_a_reader_whose_markers_are_deleted_misses_nothing(variant, uri: str) -> None:
    batches = int(variant.batches)

    *posted, (seen,) = in_processes(
        (producers, (uri, 0, THREADS, batches)),
        (producers, (uri, 1, THREADS, batches)),
        (deleting_reader, (uri, 2 * THREADS * batches * BATCH)),
    )

    judge_reading(flat(flat(posted)), seen)
    assert seen.gone > 0
