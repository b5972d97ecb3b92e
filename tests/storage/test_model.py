"""Every driver against a plain model, by random histories of operations.

The model knows nothing of indexes, headers or laziness: it is a list of messages, and
what is expired, claimed or delayed is computed anew whenever somebody asks.
"""

import os
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from queues.errors import ClaimNotFound, ClaimNotHeld, KeyReused, MessageClaimed, QueueNotFound
from queues.models import Address, DeadLetter, Lease, NewMessage, Once, Selection

START = 1_700_000_000_000
SOURCE, DEAD = Address(project="p", queue="source"), Address(project="p", queue="dead")
QUEUES = st.sampled_from([SOURCE, SOURCE, SOURCE, DEAD])
TTLS = st.sampled_from([60, 200, 3000, 100_000])
CLIENTS = st.sampled_from(["alice", "bob"])
SCALE = float(os.environ.get("HERMOD_TEST_EXAMPLES", "1"))


@dataclass(eq=False)
class Held:
    """A message of the model."""

    id: str
    body: bytes
    created: int
    expires: int
    visible: int
    client: str
    count: int = 0
    claim: str | None = None


@dataclass(eq=False)
class Box:
    """A queue of the model; it exists for the store once something was posted to it."""

    messages: list[Held] = field(default_factory=list)
    claims: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # ttl, renewed, expires
    keys: dict[str, tuple[bytes, int, list[str]]] = field(default_factory=dict)
    exists: bool = False


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and the model side by side."""

    store = None  # the driver's MessageStore, set by the test
    ids = Bundle("ids")
    claims = Bundle("claims")

    def __init__(self):
        super().__init__()
        self.now = START
        self.boxes = {SOURCE: Box(), DEAD: Box()}

    @initialize(target=ids)
    def begin(self):
        for address in self.boxes:
            self.store.drop(address)
        return self.post(SOURCE, [60, 3000, 200, 3000, 60, 100_000], 0, "alice", None, create=True)

    @property
    def busy(self):
        """Whether there is so much that emptying a queue tells something."""
        return sum(len(self.live(box)) for box in self.boxes.values()) >= 8

    @property
    def anything_ready(self):
        return any(self.ready(box) for box in self.boxes.values())

    # What the model thinks.

    def live_claims(self, box):
        return {id_: claim for id_, claim in box.claims.items() if claim[2] > self.now}

    def live(self, box):
        return [each for each in box.messages if each.expires > self.now]

    def claimed(self, box, each):
        return each.claim in self.live_claims(box)

    def ready(self, box):
        return [each for each in self.live(box) if each.visible <= self.now and not self.claimed(box, each)]

    def find(self, box, ids):
        return [each for each in self.live(box) if each.id in ids]

    def extend(self, box, each, until, grace):
        if each.expires < until:
            each.expires = until + grace * 1000

    def same(self, box, found, expected):
        assert [message.id for message in found] == [each.id for each in expected]
        for message, each in zip(found, expected, strict=True):
            assert message.body == each.body
            assert (message.created, message.expires) == (each.created, each.expires)
            assert message.client_id == each.client
            assert message.claim_count == each.count
            assert message.claim_id == (each.claim if self.claimed(box, each) else None)

    # What clients do.

    @rule(
        target=ids,
        address=QUEUES,
        ttls=st.lists(TTLS, min_size=1, max_size=6),
        delay=st.sampled_from([0, 0, 0, 30, 75]),
        client=CLIENTS,
        key=st.sampled_from([None, None, "k1", "k2"]),
        create=st.sampled_from([True, True, True, False]),
    )
    def post(self, address, ttls, delay, client, key, create):
        box = self.boxes[address]
        messages = [NewMessage(body=b"%d" % ttl, ttl=ttl, delay=delay, client_id=client) for ttl in ttls]
        print_ = repr((ttls, delay, client)).encode()
        once = None if key is None else Once(key=key, fingerprint=print_, window=120)
        if not box.exists and not create:
            with pytest.raises(QueueNotFound):
                self.store.post(address, messages, now=self.now, once=once)
            return multiple()
        earlier = box.keys.get(key)
        if earlier and earlier[1] > self.now:
            if earlier[0] != print_:
                with pytest.raises(KeyReused):
                    self.store.post(address, messages, now=self.now, once=once, create=create)
                return multiple()
            posted = self.store.post(address, messages, now=self.now, once=once, create=create)
            assert (list(posted.ids), posted.repeated) == (earlier[2], True)
            return multiple()
        posted = self.store.post(address, messages, now=self.now, once=once, create=create)
        assert not posted.repeated
        assert list(posted.ids) == sorted(set(posted.ids))
        assert not set(posted.ids) & {each.id for each in box.messages}
        box.exists = True
        for id_, message in zip(posted.ids, messages, strict=True):
            box.messages.append(
                Held(
                    id=id_,
                    body=message.body,
                    created=self.now,
                    expires=self.now + message.ttl * 1000,
                    visible=self.now + delay * 1000,
                    client=client,
                )
            )
        if once:
            box.keys[key] = (print_, self.now + 120_000, list(posted.ids))
        return multiple(*posted.ids)

    @precondition(lambda self: self.anything_ready)
    @rule(
        target=claims,
        address=QUEUES,
        limit=st.integers(1, 5),
        ttl=st.sampled_from([60, 100, 250]),
        grace=st.sampled_from([60, 200]),
        dead=st.sampled_from([None, (1, None), (2, 9999), (1, 120)]),
    )
    def claim(self, address, limit, ttl, grace, dead):
        box = self.boxes[address]
        dead_letter = dead and DeadLetter(address=DEAD, max_claims=dead[0], ttl=dead[1])
        lease = Lease(ttl=ttl, grace=grace, limit=limit, dead_letter=dead_letter)
        answer = self.store.claim(address, lease, now=self.now)
        buried, taken = [], []
        for each in self.ready(box):
            if len(taken) == limit:
                break
            doomed = dead is not None and address != DEAD and each.count >= dead[0]
            (buried if doomed else taken).append(each)
        # A driver may leave alone what is doomed behind the last message it takes, and no more than that.
        assert answer.dead_lettered == len(buried)
        self.bury(box, buried, dead)
        if not taken:
            assert answer.claim is None
            return multiple()
        claim, until = answer.claim, self.now + ttl * 1000
        assert claim.id not in box.claims
        assert (claim.ttl, claim.renewed, claim.expires) == (ttl, self.now, until)
        box.claims[claim.id] = (ttl, self.now, until)
        for each in taken:
            assert not self.claimed(box, each), "two live leases on one message"
            each.claim, each.count = claim.id, each.count + 1
            self.extend(box, each, until, grace)
        self.same(box, claim.messages, taken)
        return claim.id

    def bury(self, box, buried, dead):
        if not buried:
            return
        target = self.boxes[DEAD]
        target.exists = True
        known = {each.id for each in target.messages}
        arrived = [message for message in self.everything(DEAD) if message.id not in known]
        assert len(arrived) == len(buried)
        for each, message in zip(buried, arrived, strict=True):
            box.messages.remove(each)
            each.id, each.count, each.claim, each.visible = message.id, 0, None, self.now
            if dead[1] is not None:
                each.created, each.expires = self.now, self.now + dead[1] * 1000
            target.messages.append(each)

    @rule(address=QUEUES, claim=claims, ttl=st.sampled_from([60, 300]), grace=st.sampled_from([60, 200]))
    def renew(self, address, claim, ttl, grace):
        box = self.boxes[address]
        lease = Lease(ttl=ttl, grace=grace)
        if claim not in self.live_claims(box):
            with pytest.raises(ClaimNotFound):
                self.store.renew(address, claim, lease, now=self.now)
            return
        self.store.renew(address, claim, lease, now=self.now)
        until = self.now + ttl * 1000
        box.claims[claim] = (ttl, self.now, until)
        for each in self.live(box):
            if each.claim == claim:
                self.extend(box, each, until, grace)

    @rule(address=QUEUES, claim=claims)
    def read_claim(self, address, claim):
        box = self.boxes[address]
        if claim not in self.live_claims(box):
            with pytest.raises(ClaimNotFound):
                self.store.read_claim(address, claim, now=self.now)
            return
        found = self.store.read_claim(address, claim, now=self.now)
        assert (found.ttl, found.renewed, found.expires) == box.claims[claim]
        self.same(box, found.messages, [each for each in self.live(box) if each.claim == claim])

    @rule(address=QUEUES, claim=claims)
    def release(self, address, claim):
        self.store.release(address, claim, now=self.now)
        self.boxes[address].claims.pop(claim, None)

    @rule(address=QUEUES, id_=ids, claim=st.one_of(st.none(), claims, st.just("no claim at all")))
    def delete(self, address, id_, claim):
        box = self.boxes[address]
        for each in self.find(box, [id_]):
            held = self.claimed(box, each)
            refusal = None
            if claim is None:
                refusal = MessageClaimed if held else None
            elif not held or claim not in self.live_claims(box):
                refusal = ClaimNotHeld
            elif each.claim != claim:
                refusal = MessageClaimed
            if refusal:
                with pytest.raises(refusal):
                    self.store.delete(address, id_, now=self.now, claim_id=claim)
                return
            box.messages.remove(each)
        self.store.delete(address, id_, now=self.now, claim_id=claim)

    @rule(
        address=QUEUES,
        chosen=st.lists(ids, max_size=6),
        covering=st.one_of(st.none(), st.lists(claims, max_size=2)),
    )
    def delete_many(self, address, chosen, covering):
        box = self.boxes[address]
        found = self.find(box, chosen)
        if covering is not None and any(
            self.claimed(box, each) and each.claim not in covering for each in found
        ):
            with pytest.raises(MessageClaimed):
                self.store.delete_many(address, chosen, now=self.now, claim_ids=covering)
            return
        self.store.delete_many(address, [*chosen, "malformed"], now=self.now, claim_ids=covering)
        box.messages = [each for each in box.messages if each not in found]

    @precondition(lambda self: self.anything_ready)
    @rule(address=QUEUES, limit=st.integers(1, 2))
    def pop(self, address, limit):
        box = self.boxes[address]
        expected = self.ready(box)[:limit]
        found = self.store.pop(address, limit, now=self.now)
        self.same(box, found, expected)
        box.messages = [each for each in box.messages if each not in expected]

    @rule(seconds=st.sampled_from([1, 29, 30, 59, 60, 61]), milliseconds=st.sampled_from([0, 0, 1, 999]))
    def time_passes(self, seconds, milliseconds):
        self.now += seconds * 1000 + milliseconds

    @rule(which=st.integers(0, 3), early=st.sampled_from([0, 0, 1]))
    def time_passes_until_something_falls_due(self, which, early):
        instants = {instant for box in self.boxes.values() for instant in self.instants(box)}
        ahead = sorted(instant for instant in instants if instant > self.now)
        if ahead:
            self.now = max(self.now, ahead[min(which, len(ahead) - 1)] - early)

    def instants(self, box):
        for each in box.messages:
            yield from (each.expires, each.visible)
        for _, _, expires in box.claims.values():
            yield expires
        for _, expires, _ in box.keys.values():
            yield expires

    @rule(limit=st.sampled_from([1, 3, 1000]))
    def expire(self, limit):
        assert self.store.expire(now=self.now, limit=limit) >= 0

    @precondition(lambda self: self.busy)
    @rule(address=QUEUES)
    def purge(self, address):
        self.store.purge(address, now=self.now)
        box = self.boxes[address]
        box.messages, box.claims = [], {}

    @precondition(lambda self: self.busy)
    @rule(address=QUEUES)
    def drop(self, address):
        self.store.drop(address)
        self.boxes[address] = Box()

    @rule(address=QUEUES, chosen=st.lists(ids, max_size=6))
    def get(self, address, chosen):
        box = self.boxes[address]
        found = self.store.get(address, [*chosen, "f" * 32, ""], now=self.now)
        self.same(box, found, self.find(box, chosen))

    @rule(
        address=QUEUES,
        limit=st.integers(1, 4),
        hide=st.one_of(st.none(), CLIENTS),
        claimed=st.booleans(),
        delayed=st.booleans(),
    )
    def follow_markers(self, address, limit, hide, claimed, delayed):
        box = self.boxes[address]
        expected = [
            each
            for each in self.live(box)
            if each.client != hide
            and (claimed or not self.claimed(box, each))
            and (delayed or each.visible <= self.now)
        ]
        found = self.pages(address, limit, hide, claimed=claimed, delayed=delayed)
        self.same(box, found, expected)

    @rule(address=QUEUES, marker=ids)
    def list_behind_any_marker(self, address, marker):
        box = self.boxes[address]
        page = self.store.list(
            address,
            Selection(marker=marker, limit=100, include_claimed=True, include_delayed=True),
            now=self.now,
        )
        mine = any(each.id[16:] == marker[16:] for each in box.messages)
        assert [message.id for message in page] == [
            each.id for each in self.live(box) if mine and each.id > marker
        ]

    def pages(self, address, limit, hide=None, *, claimed=True, delayed=True):
        found, marker = [], None
        while True:
            page = self.store.list(
                address,
                Selection(
                    marker=marker,
                    limit=limit,
                    hide_client=hide,
                    include_claimed=claimed,
                    include_delayed=delayed,
                ),
                now=self.now,
            )
            if not page:
                return found
            assert len(page) <= limit
            found += page
            marker = page[-1].id

    def everything(self, address):
        return self.pages(address, 100)

    # What must hold at any time.

    @invariant()
    def statistics_are_exact(self):
        for address, box in self.boxes.items():
            stats = self.store.stats(address, now=self.now)
            live = self.live(box)
            claimed = sum(self.claimed(box, each) for each in live)
            assert (stats.free, stats.claimed, stats.total) == (len(live) - claimed, claimed, len(live))
            ends = [stats.oldest and stats.oldest.id, stats.newest and stats.newest.id]
            assert ends == ([live[0].id, live[-1].id] if live else [None, None])

    def teardown(self):
        for address, box in self.boxes.items():
            self.same(box, self.everything(address), self.live(box))


def test_a_store_behaves_like_the_model(driver, variant):
    class Machine(StoreMachine):
        store = driver.messages

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=max(1, int(100 * SCALE)),
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
