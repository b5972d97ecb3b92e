"""Random histories: every driver answers as the model does, after every step."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from queues.errors import HermodError
from queues.models import Address, DeadLetter, Lease, NewMessage, Once, Outlook, Selection, Stats
from queues.ports import MessageStore
from tests.storage.model import Model
from tests.storage.probe import Clock

#: How much longer than usual to search: HERMOD_TEST_EXAMPLES=100 for a night.
FACTOR = int(os.environ.get("HERMOD_TEST_EXAMPLES", "1"))

NAMES = ("main", "main>dead", "main>dead>dead")  # so that any of them can take another's dead letters
PROJECTS = (f"project{number}" for number in itertools.count())

places = st.sampled_from(["main", "main", "main", *NAMES])
lives = st.sampled_from([1, 5, 30, 30, 60, 3600])  # seconds
batches = st.lists(
    st.builds(
        NewMessage,
        body=st.binary(max_size=4),
        ttl=lives,
        delay=st.sampled_from([0, 0, 0, 1, 10, 60]),
        client_id=st.sampled_from(["", "one", "two"]),
        sealed=st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=4,
)
posts_once = st.builds(
    Once, key=st.sampled_from(["k", "K"]), fingerprint=st.sampled_from([b"1", b"2"]), window=lives
)
letters = st.tuples(st.sampled_from([*NAMES[1:2] * 3, *NAMES]), st.integers(1, 2), st.none() | lives)
leases = st.builds(Lease, ttl=lives, grace=st.sampled_from([0, 1, 60]), limit=st.sampled_from([1, 2, 3, 20]))


def outcome(act: Callable[[], Any]) -> Any:
    """Return what an act returns, or the class of what it raises."""
    try:
        return act()
    except HermodError as error:
        return type(error)


class History(RuleBasedStateMachine):
    """One project's queues of a store, which other histories have used before."""

    def __init__(self, store: MessageStore, clock: Clock) -> None:
        super().__init__()
        self.store, self.clock = store, clock
        self.model = Model(now=clock.now)
        self.project = next(PROJECTS)
        self.message_ids = ["nonsense", "0" * 32]  # ever seen, in any queue
        self.claim_ids = ["nonsense", "0" * 32]

    def at(self, name: str) -> Address:
        return Address(project=self.project, queue=name)

    def teardown(self) -> None:
        for name in NAMES:
            self.store.drop(self.at(name))

    def live_claims(self) -> list[tuple[Address, str]]:
        return [(address, id_) for address, claims in self.model.claims.items() for id_ in claims]

    def some_claim(self, data: st.DataObject) -> tuple[Address, str]:
        """Draw a claim: a live one in its own queue most of the time, else any id anywhere."""
        live = self.live_claims()
        if live and data.draw(st.sampled_from([True, True, False])):
            return data.draw(st.sampled_from(live))
        return self.at(data.draw(places)), data.draw(st.sampled_from(self.claim_ids))

    def some_claim_id(self, data: st.DataObject) -> str:
        return self.some_claim(data)[1]

    def some_ids(self, data: st.DataObject, address: Address) -> list[str]:
        """Draw ids of messages: existing ones of this queue most of the time."""
        existing = [message.id for message in self.model.held(address).messages]
        pool = data.draw(st.sampled_from([existing, existing, self.message_ids])) or self.message_ids
        return data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4))

    @initialize(
        lengths=st.lists(lives, min_size=2, max_size=8), worn=st.integers(1, 3), held=st.integers(1, 3)
    )
    def begin_in_the_middle(self, lengths: list[int], worn: int, held: int) -> None:
        """Store messages, of which some have been handed out before, and some are."""
        self.store_and_model_post("main", [NewMessage(body=b"%d" % ttl, ttl=ttl) for ttl in lengths])
        for ttl in range(1, 3):
            self.hand_out_and_take_back(Lease(ttl=ttl, grace=0, limit=worn))
        self.store_and_model_claim("main", Lease(ttl=30, grace=1, limit=held))

    @rule(name=places, batch=batches, once=st.none() | posts_once, create=st.booleans() | st.just(True))
    def post(self, name: str, batch: list[NewMessage], once: Once | None, create: bool) -> None:
        self.store_and_model_post(name, batch, once, create=create)

    def store_and_model_post(
        self, name: str, batch: list[NewMessage], once: Once | None = None, *, create: bool = True
    ) -> None:
        address = self.at(name)
        expected = outcome(lambda: self.model.recall(address, once, create=create))
        answer = outcome(
            lambda: self.store.post(address, batch, now=self.clock.now, once=once, create=create)
        )
        if expected is None:
            assert not answer.repeated
            self.model.post(address, batch, answer.ids, once)
            self.message_ids += answer.ids
        elif isinstance(expected, type):
            assert answer is expected
        else:
            assert (answer.repeated, list(answer.ids)) == (True, list(expected))

    @rule(name=places, lease=leases)
    def claim(self, name: str, lease: Lease) -> None:
        self.store_and_model_claim(name, lease)

    @rule(name=places, lease=leases, letter=letters)
    def claim_or_bury(self, name: str, lease: Lease, letter: tuple[str, int, int | None]) -> None:
        self.store_and_model_claim(name, lease, letter)

    def store_and_model_claim(
        self, name: str, lease: Lease, letter: tuple[str, int, int | None] | None = None
    ) -> None:
        address = self.at(name)
        if letter is not None:
            target, max_claims, ttl = letter
            lease = replace(
                lease, dead_letter=DeadLetter(address=self.at(target), max_claims=max_claims, ttl=ttl)
            )
        taken, worn = self.model.split(address, lease)

        answer = self.store.claim(address, lease, now=self.clock.now)

        assert answer.dead_lettered == len(worn)
        if worn and lease.dead_letter is not None:
            self.bury(address, lease, lease.dead_letter.address, len(worn))
        if not taken:
            assert answer.claim is None
            return
        assert answer.claim is not None
        assert answer.claim.id not in self.claim_ids
        self.claim_ids.append(answer.claim.id)
        ids = [message.id for message in taken]
        self.model.lease(address, answer.claim.id, lease, ids)
        self.model.count(address, ids)
        expected = self.model.read_claim(address, answer.claim.id)
        assert replace(answer.claim, messages=list(answer.claim.messages)) == expected

    def bury(self, source: Address, lease: Lease, target: Address, count: int) -> None:
        """Learn the new ids of the messages that were moved, and let the model move them."""
        _, worn = self.model.split(source, lease)
        selection = Selection(limit=10_000, include_claimed=True, include_delayed=True)
        new_ids = [message.id for message in self.store.list(target, selection, now=self.clock.now)][-count:]
        self.model.bury(source, worn, new_ids, lease)
        self.message_ids += new_ids

    def hand_out_and_take_back(self, lease: Lease) -> None:
        self.store_and_model_claim("main", lease)
        for address, claim_id in self.live_claims()[-1:]:
            self.store_and_model_release(address, claim_id)

    @rule(lease=leases, data=st.data())
    def renew(self, lease: Lease, data: st.DataObject) -> None:
        address, claim_id = self.some_claim(data)
        expected = outcome(lambda: self.model.renew(address, claim_id, lease))
        assert outcome(lambda: self.store.renew(address, claim_id, lease, now=self.clock.now)) == expected

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.store_and_model_release(*self.some_claim(data))

    def store_and_model_release(self, address: Address, claim_id: str) -> None:
        self.model.release(address, claim_id)
        self.store.release(address, claim_id, now=self.clock.now)

    @precondition(lambda self: self.live_claims())
    @rule(data=st.data(), count=st.integers(1, 3))
    def acknowledge(self, data: st.DataObject, count: int) -> None:
        address, claim_id = data.draw(st.sampled_from(self.live_claims()))
        for message in self.model.read_claim(address, claim_id).messages[:count]:
            self.model.delete(address, message.id, claim_id)
            self.store.delete(address, message.id, now=self.clock.now, claim_id=claim_id)

    @rule(name=places, data=st.data(), without=st.booleans())
    def delete(self, name: str, data: st.DataObject, without: bool) -> None:
        address = self.at(name)
        id_ = self.some_ids(data, address)[0]
        claim_id = None if without else self.some_claim_id(data)
        expected = outcome(lambda: self.model.delete(address, id_, claim_id))
        answer = outcome(lambda: self.store.delete(address, id_, now=self.clock.now, claim_id=claim_id))
        assert answer == expected

    @rule(name=places, data=st.data(), heed=st.booleans())
    def delete_many(self, name: str, data: st.DataObject, heed: bool) -> None:
        address = self.at(name)
        ids = self.some_ids(data, address)
        claim_ids = [self.some_claim_id(data) for _ in range(2)] if heed else None
        expected = outcome(lambda: self.model.delete_many(address, ids, claim_ids))
        answer = outcome(
            lambda: self.store.delete_many(address, ids, now=self.clock.now, claim_ids=claim_ids)
        )
        assert answer == expected

    @rule(name=places, limit=st.sampled_from([1, 1, 2, 20]))
    def pop(self, name: str, limit: int) -> None:
        expected = self.model.pop(self.at(name), limit)
        answer = self.store.pop(self.at(name), limit, now=self.clock.now)
        assert replace(answer, messages=list(answer.messages)) == expected

    @rule(name=st.sampled_from(NAMES), way=st.sampled_from(["purge", "drop", None, None, None]))
    def empty(self, name: str, way: str | None) -> None:
        if way == "purge":
            self.model.purge(self.at(name))
            self.store.purge(self.at(name), now=self.clock.now)
        elif way == "drop":
            self.model.drop(self.at(name))
            self.store.drop(self.at(name))

    @rule(ms=st.sampled_from([1, 999, 5000, 61_000]), ahead=st.integers(0, 5), early=st.booleans())
    def wait(self, ms: int, ahead: int, early: bool) -> None:
        """Wait a while, or until just when, or just before, something will happen."""
        moments = self.model.moments()
        self.move_to(moments[ahead] - early if ahead < len(moments) else self.clock.now + ms)

    def move_to(self, now: int) -> None:
        self.clock.now = max(self.clock.now, now)
        self.model.move_to(self.clock.now)

    @rule(limit=st.sampled_from([1, 2, 1000]))
    def reclaim(self, limit: int) -> None:
        self.store.expire(now=self.clock.now, limit=limit)
        parts = [self.model.stats(self.at(name)) for name in NAMES]
        expected = Stats(free=sum(part.free for part in parts), claimed=sum(part.claimed for part in parts))
        assert self.store.totals(now=self.clock.now) == expected

    @rule(
        name=places,
        selection=st.builds(
            Selection,
            limit=st.sampled_from([1, 2, 3, 20]),
            hide_client=st.sampled_from([None, "", "one"]),
            include_claimed=st.booleans(),
            include_delayed=st.booleans(),
        ),
        data=st.data(),
    )
    def look(self, name: str, selection: Selection, data: st.DataObject) -> None:
        address = self.at(name)
        issued = self.model.held(address).issued
        pool = data.draw(st.sampled_from([issued, issued, self.message_ids]))
        marker = data.draw(st.none() | st.sampled_from(pool or self.message_ids))
        selection = replace(selection, marker=marker)
        page = self.model.page(address, selection)
        assert list(self.store.list(address, selection, now=self.clock.now)) == page

        ids = self.some_ids(data, address)
        existing = [message for message in self.model.held(address).messages if message.id in ids]
        assert list(self.store.get(address, ids, now=self.clock.now)) == existing

        claim_address, claim_id = self.some_claim(data)
        claim = outcome(lambda: self.model.read_claim(claim_address, claim_id).messages)
        assert claim == outcome(
            lambda: list(self.store.read_claim(claim_address, claim_id, now=self.clock.now).messages)
        )

    @invariant()
    def every_queue_holds_what_it_must_in_order(self) -> None:
        selection = Selection(limit=10_000, include_claimed=True, include_delayed=True)
        for name in NAMES:
            address = self.at(name)
            expected = self.model.held(address).messages
            assert list(self.store.list(address, selection, now=self.clock.now)) == expected
            assert self.store.stats(address, now=self.clock.now) == self.model.stats(address)
            hiding = replace(selection, hide_client="two")
            others = [message for message in expected if message.client_id != "two"]
            assert list(self.store.list(address, hiding, now=self.clock.now)) == others

    @invariant()
    def the_outlook_is_early_perhaps_and_never_late(self) -> None:
        for name in NAMES:
            address = self.at(name)
            outlook = self.store.outlook(address, now=self.clock.now)
            if address not in self.model.queues:
                assert outlook == Outlook()
                continue
            assert outlook.last == len(self.model.held(address).issued)
            moment = self.model.next_moment(address)
            assert outlook.due is None or outlook.due > self.clock.now
            assert moment is None or (outlook.due is not None and outlook.due <= moment)

    @invariant()
    def every_claimed_message_is_in_one_live_claim(self) -> None:
        for name in NAMES:
            address = self.at(name)
            found: list[str] = []
            for claim_id in self.model.leases(address):
                claim = self.store.read_claim(address, claim_id, now=self.clock.now)
                assert replace(claim, messages=list(claim.messages)) == self.model.read_claim(
                    address, claim_id
                )
                found += [message.id for message in claim.messages]
            claimed = [m.id for m in self.model.held(address).messages if m.claim_id is not None]
            assert sorted(found) == claimed


def test_any_history_leads_where_the_model_leads(driver, clock):
    class HistoryOfThisStore(History):
        def __init__(self):
            super().__init__(driver.messages, clock)

    run_state_machine_as_test(
        HistoryOfThisStore,
        settings=settings(
            max_examples=40 * FACTOR,
            stateful_step_count=40,
            deadline=None,
            derandomize=False,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
