"""What pops and purges explain that is missing, and what not."""

import pytest

from tests.faults import checkers, leases, removals
from tests.faults.delivery_order import delays, delivery_order
from tests.faults.history import FOREVER
from tests.faults.load import NEWS, SCRATCH, TASKS
from tests.faults.stories import Story, id_of
from tests.faults.test_checkers import A, B, C, problems
from tests.faults.verdict import SETTLED


def posted(*values: str) -> Story:
    return Story().post(*values, queue=TASKS)


def lost(story: Story) -> str:
    return problems(checkers.total_queue, story)


class TestPops:
    def test_what_a_pop_brought_has_come_out(self) -> None:
        story = posted(A, B).pop((1, A)).pop((2, B))
        assert lost(story) == ""
        assert problems(checkers.conservation, story) == ""

    def test_what_a_pop_did_not_bring_has_not(self) -> None:
        assert lost(posted(A, B).pop((1, A))) == "lost: alpha/b of alpha's tasks"

    def test_what_a_claim_had_meanwhile_is_none_of_its_business(self) -> None:
        story = posted(A, B).pop((1, A)).claim("c", (2, B), queue=TASKS)
        assert lost(story) == "lost: alpha/b of alpha's tasks"
        assert lost(story.then("delete", TASKS, asked={"claim": "c", "id": "2", "value": B})) == ""

    def test_one_whose_answer_was_lost_took_as_many_as_it_asked_for_at_most(self) -> None:
        verdict = checkers.total_queue(posted(A, B).lost_pop(2).history)
        assert (verdict.problems, verdict.numbers["popped unseen"], verdict.numbers["lost"]) == ((), 2, 0)
        verdict = checkers.total_queue(posted(A, B, C).lost_pop(2).history)
        assert len(verdict.problems) == 1
        assert (verdict.numbers["popped unseen"], verdict.numbers["lost"]) == (2, 1)
        assert lost(posted(A, B, C).lost_pop(2).lost_pop(1)) == ""

    def test_it_took_nothing_that_was_seen_later(self) -> None:
        story = posted(A).lost_pop(1, at=20).claim("c", (1, A), at=50, queue=TASKS)
        assert "lost: alpha/a" in lost(story)
        assert lost(posted(A).claim("c", (1, A), at=50, queue=TASKS).lost_pop(1, at=70)) == ""

    def test_it_took_nothing_that_was_leased_until_it_was_over(self) -> None:
        story = posted(A).claim("c", (1, A), ttl=90, queue=TASKS).lost_pop(1, at=20)
        assert "lost: alpha/a" in lost(story)
        story = posted(A).claim("c", (1, A), ttl=90, queue=TASKS).then("release", TASKS, asked={"claim": "c"})
        assert lost(story.lost_pop(1, at=20)) == ""

    def test_it_took_nothing_that_was_posted_when_it_was_over(self) -> None:
        early = Story().lost_pop(1, at=0)
        assert lost(early.post(A, queue=TASKS, at=1 + SETTLED)) == ""
        late = Story().lost_pop(1, at=0)
        assert "lost: alpha/a" in lost(late.post(A, queue=TASKS, at=1.1 + SETTLED))

    def test_it_may_wait_as_long_as_something_is_wrong(self) -> None:
        story = Story().fault("pause api-1", lasts=30).lost_pop(1, at=2).fault("kill api-1", lasts=5)
        assert lost(story.post(A, queue=TASKS, at=40)) == ""
        story = Story().lost_pop(1, at=0).fault("pause api-1", lasts=0.1)
        story.now = 30
        assert "lost: alpha/a" in lost(story.post(A, queue=TASKS, at=40))

    def test_nobody_ever_heard_of_it(self) -> None:
        assert lost(Story().lost_pop(1, at=0, takes=FOREVER).post(A, queue=TASKS, at=90)) == ""

    @pytest.mark.parametrize("why", ["refused", "failed", "elsewhere", "another tenant"])
    def test_it_took_nothing_at_all(self, why: str) -> None:
        story = posted(A)
        if why == "refused":
            story.lost_pop(1, error="ConnectionRefusedError")
        elif why == "failed":
            story.then("pop", TASKS, asked={"limit": 1}, outcome="fail", status=404)
        elif why == "elsewhere":
            story.lost_pop(1, queue=NEWS)
        else:
            story.tenant = "beta"
            story.lost_pop(1)
        assert "lost: alpha/a" in lost(story)

    def test_the_latest_explains_what_was_there_last(self) -> None:
        """However they are told, as many as possible are explained."""
        story = posted(A).lost_pop(1, at=20).post(B, first=2, queue=TASKS, at=50).lost_pop(1, at=60)
        assert lost(story) == ""
        story = posted(A).post(B, first=2, queue=TASKS, at=50).lost_pop(1, at=60).lost_pop(1, at=61)
        assert lost(story) == ""
        story = posted(A).lost_pop(2, at=20).post(B, first=2, queue=TASKS, at=50)
        assert lost(story) == "lost: alpha/b of alpha's tasks"

    def test_a_place_that_nobody_has_seen_is_what_it_took(self) -> None:
        story = posted(A).lost_post(B, queue=TASKS).post(C, first=3, queue=TASKS).pop((1, A)).pop((3, C))
        assert "1 places of alpha's tasks were never seen, [2]" in problems(checkers.conservation, story)
        assert problems(checkers.conservation, story.lost_pop(1)) == ""

    def test_it_cannot_have_taken_that_and_something_else(self) -> None:
        story = posted(A).lost_post(B, queue=TASKS).post(C, first=3, queue=TASKS).pop((1, A)).lost_pop(1)
        assert lost(story) == ""
        assert "1 places of alpha's tasks were never seen" in problems(checkers.conservation, story)
        assert problems(checkers.conservation, story.lost_pop(1)) == ""

    def test_a_message_that_comes_again(self) -> None:
        again = "alpha/a of alpha was deleted, and appears again"
        assert again in problems(checkers.acked_stays_acked, posted(A).pop((1, A)).pop((1, A)))
        story = posted(A).pop((1, A)).claim("c", (1, A), queue=TASKS)
        assert again in problems(checkers.acked_stays_acked, story)
        story = posted(A).claim("c", (1, A), queue=TASKS).pop((1, A), at=20)
        assert problems(checkers.acked_stays_acked, story) == ""

    def test_a_message_that_two_get_at_the_same_time(self) -> None:
        story = posted(A).pop((1, A), at=5).pop((1, A), at=5.5)
        assert problems(checkers.acked_stays_acked, story) == "alpha/a of alpha was popped twice"

    @pytest.mark.parametrize("start", [1.5, 2.5, 4.0])
    def test_a_message_that_somebody_has(self, start: float) -> None:
        story = posted(A).claim("c", (1, A), ttl=30, queue=TASKS, at=2).pop((1, A), at=start)
        assert "alpha/a of alpha was popped while somebody had it" in problems(leases.one_live_lease, story)

    def test_a_message_that_somebody_had(self) -> None:
        story = posted(A).claim("c", (1, A), ttl=3, queue=TASKS, at=2).pop((1, A), at=4)
        assert problems(leases.one_live_lease, story) == ""

    def test_an_older_message_is_passed_over(self) -> None:
        assert "was not given alpha/a" in problems(delivery_order, posted(A, B).pop((2, B)).pop((1, A)))
        assert problems(delivery_order, posted(A, B).pop((1, A)).pop((2, B))) == ""
        assert problems(delivery_order, posted(A, B).lost_pop(1).pop((2, B), at=60)) == ""

    def test_a_message_that_comes_before_its_delay_is_over(self) -> None:
        story = Story().post(A, queue=TASKS, delay=9).pop((1, A))
        assert "got alpha/a 6.650 s early" in problems(delays, story)


class TestPurges:
    def test_what_was_purged_is_neither_lost_nor_seen_again(self) -> None:
        story = Story().post(A, queue=SCRATCH).purge().post(B, first=2, queue=SCRATCH)
        assert lost(story) == "lost: alpha/b of alpha's scratch"
        assert lost(story.listing(SCRATCH, (2, B))) == ""
        assert problems(removals.purges, story) == ""
        story.listing(SCRATCH, (1, A), (2, B))
        assert problems(removals.purges, story) == "alpha/a of alpha was purged, and appears again"

    def test_what_is_gone_and_no_purge_can_have_taken(self) -> None:
        story = Story().purge().post(A, B, queue=SCRATCH).listing(SCRATCH, (2, B))
        assert problems(removals.purges, story) == "alpha/a of alpha is not listed, and no purge took it"

    def test_what_is_posted_meanwhile_may_be_there_or_not(self) -> None:
        for page in ([(1, A)], []):
            story = Story().purge(at=1).post(A, queue=SCRATCH, at=1.5).listing(SCRATCH, *page)
            assert problems(removals.purges, story) == ""
            assert lost(story) == ""

    def test_one_whose_answer_was_lost_explains_everything_until_it_is_over(self) -> None:
        story = Story().post(A, B, queue=SCRATCH).purge(outcome="unknown").listing(SCRATCH)
        assert lost(story) == ""
        assert problems(removals.purges, story) == ""
        story = Story().purge(outcome="unknown", at=0).post(A, queue=SCRATCH, at=30).listing(SCRATCH)
        assert "lost: alpha/a" in lost(story)
        assert "is not listed" in problems(removals.purges, story)

    def test_a_page_that_is_full_ends_somewhere(self) -> None:
        story = Story().post(A, B, C, queue=SCRATCH)
        asked = {"marker": "", "limit": 1}
        story.then("list", SCRATCH, asked=asked, ids=[id_of(2)], values=[B])
        assert problems(removals.purges, story) == "alpha/a of alpha is not listed, and no purge took it"

    def test_a_place_that_nobody_has_seen_was_purged(self) -> None:
        story = Story().lost_post(A, queue=SCRATCH).purge().post(B, first=2, queue=SCRATCH)
        assert problems(checkers.conservation, story.listing(SCRATCH, (2, B))) == ""
