"""Each checker passes a good history and is seen to fail on bad ones."""

from collections.abc import Callable

import pytest

from tests.faults import checkers, fan_out, leases, removals
from tests.faults.delivery_order import delays, delivery_order
from tests.faults.load import DEAD, JOBS, NEWS, SCRATCH
from tests.faults.stories import Story, id_of
from tests.faults.verdict import Verdict

A, B, C, D, E, BAD = "alpha/a", "alpha/b", "alpha/c", "alpha/d", "alpha/e", "alpha/p!"


def good() -> Story:
    """Three messages of which one is poison, two that are told to subscribers, and everything as it should be."""
    story = Story().post(A, B, BAD)
    story.post(C, queue=NEWS).post(D, queue=NEWS, first=2)
    story.post(E, queue=SCRATCH).listing(SCRATCH, (1, E))
    story.claim("c1", (1, A), (2, B), (3, BAD), ttl=30).delete("c1", 1, A).delete("c1", 2, B).release("c1")
    story.claim("c2", (3, BAD)).release("c2").claim("c3", (3, BAD)).release("c3").claim("c4")
    story.listing(NEWS, (1, C), process="follower").listing(NEWS, (2, D), marker=1, process="follower")
    story.listing(JOBS).dead(BAD).listing(NEWS, (1, C), (2, D))
    story.stats(JOBS, 0).stats(DEAD, 1).stats(NEWS, 2)
    story.delivery(C, "m1", 503).delivery(C, "m1").delivery(D, "m2")
    story.resume("pushed-0").frames("pushed-0", [(1, C), (2, D)])
    return story.resume("pushed-1").frames("pushed-1", [(1, C), (2, D)])


EVERY = (
    *(checkers.total_queue, checkers.acked_stays_acked, leases.one_live_lease, leases.fencing),
    *(leases.posting_order, delivery_order, delays, checkers.follows, checkers.conservation),
    *(removals.purges, checkers.idempotent_posts, checkers.dead_letters, fan_out.webhooks, fan_out.pushes),
    *(checkers.isolation, checkers.answers),
)


@pytest.mark.parametrize("checker", EVERY, ids=lambda checker: checker.__name__)
def test_a_good_history_passes(checker: Callable[[checkers.History], Verdict]) -> None:
    verdict = checker(good().history)
    assert verdict.problems == ()
    assert verdict.numbers


def problems(checker: Callable[[checkers.History], Verdict], story: Story) -> str:
    return "\n".join(checker(story.history).problems)


class TestTotalQueue:
    def test_what_was_answered_and_never_came_out_is_lost(self) -> None:
        story = Story().post(A, B).claim("c", (1, A)).delete("c", 1, A)
        assert problems(checkers.total_queue, story) == "lost: alpha/b of alpha's jobs"

    def test_what_was_handed_out_and_then_vanished_is_lost(self) -> None:
        assert "lost: alpha/a" in problems(checkers.total_queue, Story().post(A).claim("c", (1, A)))

    def test_what_only_a_lease_that_was_over_deleted_is_lost(self) -> None:
        story = Story().post(A).claim("c", (1, A)).delete("c", 1, A, at=20)
        assert "lost: alpha/a" in problems(checkers.total_queue, story)

    def test_what_is_missing_in_the_queue_that_nobody_consumes_is_lost(self) -> None:
        story = Story().post(A, B, queue=NEWS).listing(NEWS, (1, A))
        assert problems(checkers.total_queue, story) == "lost: alpha/b of alpha's news"

    def test_what_nobody_posted_is_unexpected(self) -> None:
        story = Story().post(A).claim("c", (1, A), (2, B)).delete("c", 1, A)
        assert problems(checkers.total_queue, story) == "unexpected: alpha/b in alpha's jobs"

    def test_what_was_posted_without_an_answer_may_come_out_or_not(self) -> None:
        story = Story().lost_post(A, B).claim("c", (1, A)).claim("d", (1, A)).delete("d", 1, A)
        verdict = checkers.total_queue(story.history)
        assert verdict.problems == ()
        assert (verdict.numbers["recovered"], verdict.numbers["duplicated"]) == (1, 1)


class TestAckedStaysAcked:
    def test_a_message_that_comes_again(self) -> None:
        story = Story().post(A).claim("c", (1, A)).delete("c", 1, A).claim("d", (1, A))
        assert "alpha/a of alpha was deleted, and appears again" in problems(
            checkers.acked_stays_acked, story
        )

    def test_a_message_that_is_listed(self) -> None:
        story = Story().post(A).claim("c", (1, A)).delete("c", 1, A).listing(JOBS, (1, A))
        assert "appears again" in problems(checkers.acked_stays_acked, story)

    def test_a_message_that_becomes_a_dead_letter(self) -> None:
        story = Story().post(A).claim("c", (1, A), ttl=30).delete("c", 1, A).dead(A)
        assert "is a dead letter" in problems(checkers.acked_stays_acked, story)

    def test_a_message_whose_deletion_was_not_answered_may_come_again(self) -> None:
        story = Story().post(A).claim("c", (1, A)).delete("c", 1, A, outcome="unknown").claim("d", (1, A))
        assert problems(checkers.acked_stays_acked, story) == ""


class TestOneLiveLease:
    def test_a_message_that_is_handed_out_to_two(self) -> None:
        story = Story().post(A).claim("c", (1, A), ttl=30).claim("d", (1, A), ttl=30)
        assert "two leases of alpha/a" in problems(leases.one_live_lease, story)

    @pytest.mark.parametrize("end", ["release", "delete", "expiry", "jump"])
    def test_a_lease_that_may_be_over(self, end: str) -> None:
        story = Story().post(A).claim("c", (1, A), ttl=30)
        if end == "release":
            story.release("c")
        elif end == "delete":
            story.delete("c", 1, A, outcome="unknown")
        elif end == "expiry":
            story.now += 29
        else:
            story.fault("clocks off by +6 s", lasts=0.5)
        assert problems(leases.one_live_lease, story.claim("d", (1, A))) == ""

    def test_a_clock_that_does_not_decide_is_no_excuse(self) -> None:
        story = Story().post(A).claim("c", (1, A), ttl=30)
        story.fault("clocks off by +3600 s", lasts=0.5, decides=False).claim("d", (1, A))
        assert "two leases of alpha/a" in problems(leases.one_live_lease, story)

    def test_a_lease_that_was_renewed(self) -> None:
        story = Story().post(A).claim("c", (1, A), ttl=3).renew("c", 30)
        story.now += 10
        assert "two leases of alpha/a" in problems(leases.one_live_lease, story.claim("d", (1, A)))


class TestFencing:
    def test_a_lease_that_is_over_and_still_deletes(self) -> None:
        story = Story().post(A).claim("c", (1, A)).delete("c", 1, A, at=20)
        assert "with a lease that was over" in problems(leases.fencing, story)

    def test_it_is_refused(self) -> None:
        story = Story().post(A).claim("c", (1, A)).delete("c", 1, A, at=20, outcome="fail", status=400)
        assert problems(leases.fencing, story) == ""

    def test_there_is_nothing_to_delete_any_more(self) -> None:
        story = Story().post(A).claim("c", (1, A)).claim("d", (1, A), at=10).delete("d", 1, A)
        assert problems(leases.fencing, story.delete("c", 1, A, at=20)) == ""


class TestOrder:
    def test_posts_that_overtake(self) -> None:
        story = Story().post(A, first=2).post(B, first=1)
        assert "alpha/b of alpha's jobs is before an earlier post" in problems(leases.posting_order, story)

    def test_posts_at_the_same_time_may_be_in_any_order(self) -> None:
        story = Story().post(A, first=2, at=0).post(B, first=1, at=0.5)
        assert problems(leases.posting_order, story) == ""

    def test_a_repeated_post_may_have_been_stored_by_its_first_attempt(self) -> None:
        story = Story().lost_post(A, key="k").post(B, first=2).post(A, first=1, key="k")
        assert problems(leases.posting_order, story) == ""

    def test_a_post_that_is_not_in_one_piece(self) -> None:
        story = Story().post(A, B, ids=[id_of(1), id_of(3)])
        assert "posted to places [1, 3]" in problems(leases.posting_order, story)

    def test_a_claim_that_passes_over_an_older_message(self) -> None:
        story = Story().post(A, B).claim("c", (2, B))
        assert "was not given alpha/a" in problems(delivery_order, story)

    def test_a_claim_out_of_order(self) -> None:
        assert "was not given" in problems(delivery_order, Story().post(A, B).claim("c", (2, B), (1, A)))

    def test_a_message_that_comes_back_goes_first(self) -> None:
        story = Story().post(A, B).claim("c", (1, A)).release("c")
        assert "was not given alpha/a" in problems(delivery_order, story.claim("d", (2, B)))

    def test_an_older_message_may_be_leased_or_in_a_claim_that_nobody_knows_of(self) -> None:
        assert problems(delivery_order, Story().post(A, B).claim("c", (1, A)).claim("d", (2, B))) == ""
        lost = Story().post(A, B).then("claim", JOBS, asked={"ttl": 3, "limit": 1}, outcome="unknown")
        assert problems(delivery_order, lost.claim("d", (2, B))) == ""

    def test_a_message_that_is_delayed_is_not_passed_over(self) -> None:
        story = Story().post(A, delay=2).post(B, first=2).claim("c", (2, B))
        assert problems(delivery_order, story) == ""
        story = Story().post(A, delay=2, at=-9).post(B, first=2).claim("c", (2, B))
        assert "was not given alpha/a" in problems(delivery_order, story)

    def test_a_message_that_comes_before_its_delay_is_over(self) -> None:
        story = Story().post(A, delay=9).claim("c", (1, A))
        assert "got alpha/a 6.650 s early" in problems(delays, story)
        assert problems(delays, Story().post(A, delay=9, at=-9).claim("c", (1, A))) == ""


class TestFollows:
    @pytest.mark.parametrize("pages", [[(1, A), (3, C)], [(2, B)], [(2, B), (1, A)]])
    def test_a_place_that_is_missing_or_comes_late(self, pages: list[tuple[int, str]]) -> None:
        assert "behind 0 came" in problems(
            checkers.follows, Story().listing(NEWS, *pages, process="follower")
        )

    def test_something_that_appears_behind_the_marker(self) -> None:
        story = Story().listing(NEWS, (1, A), process="follower")
        story.listing(NEWS, (3, C), marker=1, process="follower")
        assert "behind 1 came [3]" in problems(checkers.follows, story)


class TestConservation:
    def test_a_place_that_nobody_has_seen(self) -> None:
        story = Story().post(A).post(C, first=3)
        assert "1 places of alpha's jobs were never seen, [2]" in problems(checkers.conservation, story)

    def test_it_is_explained_by_a_dead_letter_that_nobody_saw_before(self) -> None:
        story = Story().post(A).lost_post(B).post(C, first=3).dead(B)
        assert problems(checkers.conservation, story) == ""

    def test_statistics_that_are_wrong(self) -> None:
        story = Story().post(A, queue=NEWS).listing(NEWS, (1, A)).stats(NEWS, 2)
        assert "alpha's news has 1, and its statistics say" in problems(checkers.conservation, story)

    def test_a_queue_that_was_made_anew(self) -> None:
        story = Story().post(A).post(B, ids=[id_of(2, "0" * 16)])
        assert "came into being 2 times" in problems(checkers.conservation, story)


class TestIdempotentPosts:
    def test_a_value_that_was_stored_twice(self) -> None:
        story = Story().lost_post(A, key="k").post(A, first=2, key="k").claim("c", (1, A), (2, A))
        assert "alpha/a is 2 times in alpha's jobs" in problems(checkers.idempotent_posts, story)

    def test_answers_that_differ(self) -> None:
        story = Story().post(A, key="k").post(A, first=2, key="k")
        assert "was answered in 2 ways" in problems(checkers.idempotent_posts, story)

    def test_a_repetition(self) -> None:
        verdict = checkers.idempotent_posts(Story().lost_post(A, key="k").post(A, key="k").history)
        assert (verdict.problems, verdict.numbers) == ((), {"repeated": 1})


class TestDeadLetters:
    def test_poison_that_is_none(self) -> None:
        assert "alpha/p! of alpha is no dead letter" in problems(checkers.dead_letters, Story().post(BAD))

    def test_one_that_is_there_twice(self) -> None:
        story = Story().post(BAD).dead(BAD, BAD)
        assert "alpha/p! of alpha is 2 dead letters" in problems(checkers.dead_letters, story)

    def test_a_message_that_is_handed_out_too_often(self) -> None:
        story = Story().post(A)
        for number in range(4):
            story.claim(f"c{number}", (1, A))
        assert "alpha/a of alpha was handed out 4 times" in problems(checkers.dead_letters, story)


class TestWebhooks:
    def test_one_that_was_never_told(self) -> None:
        story = Story().post(A, B, queue=NEWS).delivery(A, "m1").delivery(B, "m2", 503)
        assert problems(fan_out.webhooks, story) == "alpha's webhook was never told of alpha/b"
        assert problems(fan_out.webhooks, story.then("given up", NEWS, values=[B])) == ""

    def test_ids_that_change_or_are_shared(self) -> None:
        story = Story().post(A, B, queue=NEWS).delivery(A, "m1", 503).delivery(A, "m2").delivery(B, "m3")
        assert "alpha/a of alpha has 2 ids" in problems(fan_out.webhooks, story)
        story = Story().post(A, B, queue=NEWS).delivery(A, "m1").delivery(B, "m1")
        assert "have one id" in problems(fan_out.webhooks, story)

    def test_what_nobody_posted(self) -> None:
        story = Story().post(A, queue=NEWS).delivery(A, "m1").delivery(B, "m2")
        assert "was told of alpha/b" in problems(fan_out.webhooks, story)


class TestPushes:
    @pytest.mark.parametrize(
        ("frames", "problem"),
        [
            ([(1, A)], "was never told of alpha/b"),
            ([(1, A), (3, B)], "not consecutive"),
            ([(2, A), (1, B)], "not consecutive"),
            ([(1, A), (2, B), (3, A)], "under two numbers"),
        ],
    )
    def test_frames_that_are_wrong(self, frames: list[tuple[int, str]], problem: str) -> None:
        story = Story().post(A, B, queue=NEWS).resume("pushed-0").frames("pushed-0", frames)
        assert problem in problems(fan_out.pushes, story)

    def test_orders_that_differ(self) -> None:
        story = Story().post(A, B, queue=NEWS).resume("pushed-0").frames("pushed-0", [(1, A), (2, B)])
        story.resume("pushed-1").frames("pushed-1", [(1, B), (2, A)])
        assert "different orders" in problems(fan_out.pushes, story)

    def test_a_gap(self) -> None:
        story = Story().resume("pushed-0", gap={"from": 1, "to": 2})
        assert "could not resume" in problems(fan_out.pushes, story)
        story = Story().then("missed", NEWS, process="pushed-0", seen=4)
        assert "missed something behind 4" in problems(fan_out.pushes, story)


class TestTheRest:
    def test_a_value_of_another_tenant(self) -> None:
        assert "of alpha got beta/a" in problems(checkers.isolation, Story().claim("c", (1, "beta/a")))
        assert "of alpha got beta/a" in problems(checkers.isolation, Story().delivery("beta/a", "m"))

    @pytest.mark.parametrize("status", [400, 404, 409, 500, 502])
    def test_an_answer_that_is_not_meant_to_be(self, status: int) -> None:
        story = Story().then("claim", JOBS, outcome="unknown", status=status)
        assert f"claim was answered with {status}" in problems(checkers.answers, story)

    def test_a_service_that_ends_by_itself(self) -> None:
        story = Story().then("ended", process="supervisor", node="api-1", code=1)
        assert "supervisor: ended" in problems(checkers.answers, story)

    def test_how_long_nothing_was_answered(self) -> None:
        story = Story().post(A, at=0, takes=1).lost_post(B).post(C, at=9, takes=1)
        numbers = fan_out.availability(story.history).numbers
        assert numbers == {
            "s without a post at most": 9.0,
            "s without any answer at most": 9.0,
            "s for a request at most": 1.0,
        }
