"""The load: producers and consumers of two tenants, who use the same names for their queues.

A value is a text that is posted once: `alpha/3/17/0` is the first message of the 17th post of the
third producer of tenant alpha. Values that end in `!` are poison: no consumer ever deletes them.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.faults.caller import Caller
from tests.faults.history import History
from tests.faults.node import LEASE
from tests.faults.subscribers import PAGE, Follower, Pushed, Webhook

TENANTS = ("alpha", "beta")
JOBS = "jobs"  # consumed; poison goes to DEAD
DEAD = "dead"
NEWS = "news"  # listed, and told to subscribers; nothing is ever deleted
TASKS = (
    "tasks"  # popped by some and claimed by others; apart from JOBS, of which nobody takes anything unseen
)
SCRATCH = "scratch"  # listed, and purged
QUEUES = (JOBS, NEWS, TASKS, SCRATCH)
MAX_CLAIMS = 3  # how often a message of JOBS is handed out

PRODUCERS = 2  # of each tenant; the first one repeats, with a key, what was not answered
CONSUMERS = 2  # of each tenant
PAUSE = 0.12  # seconds between two posts of a producer
IDLE = 0.05  # seconds until a consumer that found nothing claims again
LATE = 1.3 * LEASE  # seconds after which a lease is over beyond doubt
SLOW = 0.5 * LEASE  # seconds that a slow worker works on what it claimed
POISON = 19  # of so many posts, one begins with a poison

DELAY = 2  # seconds until those messages can be had that are delayed
DELAYED = 0.1  # how many posts to JOBS and TASKS that is

TAKERS = 2  # of each tenant, who pop and claim TASKS
SCRIBBLERS = 2  # of each tenant, who post to SCRATCH, list it, and purge it
POPS = 0.6  # of what takers do; the rest are claims
PURGES = 0.1  # of what scribblers do
LOOKS = 0.4  # of what they do, too; the rest are posts

RETRIES = {"delays": [0, *[1] * 30]}


def is_poison(value: str) -> bool:
    """Whether no consumer ever deletes it."""
    return value.endswith("!")


@dataclass(order=True)
class Planned:
    """A deletion that is to come."""

    due: float  # by the monotonic clock
    claim: str
    id: str
    value: str


@dataclass
class Load:
    """Everybody who uses the service."""

    history: History
    seed: str
    apis: Sequence[int]
    websocket: int
    over: threading.Event = field(default_factory=threading.Event)  # no more posts and claims
    gone: threading.Event = field(default_factory=threading.Event)  # no more following
    failures: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)  # those that end when it is over
    followers: list[Follower] = field(default_factory=list)
    webhooks: list[Webhook] = field(default_factory=list)
    pushed: list[Pushed] = field(default_factory=list)

    def caller(self, name: str, tenant: str) -> Caller:
        """Return a client."""
        return Caller(name, tenant, self.apis, self.history, self.seed)

    def start(self) -> None:
        """Make queues and subscriptions, and let everybody work."""
        for tenant in TENANTS:
            self._prepare(tenant)
        for tenant in TENANTS:
            for number in range(PRODUCERS):
                self._run(self._produce, self.caller(f"producer-{number}", tenant), number)
            for number in range(CONSUMERS):
                self._run(self._consume, self.caller(f"consumer-{number}", tenant))
            self._run(self._assign, self.caller("assigner", tenant))
            for number in range(TAKERS):
                self._run(self._take, self.caller(f"taker-{number}", tenant))
            for number in range(SCRIBBLERS):
                self._run(self._scribble, self.caller(f"scribbler-{number}", tenant))
        runs = [*(follower.run for follower in self.followers), *(pushed.run for pushed in self.pushed)]
        for run in runs:
            self._start(run, self.gone)

    def stop(self) -> None:
        """Let producers and consumers come to an end."""
        self.over.set()
        for thread in self.threads:
            thread.join(60)

    def close(self) -> None:
        """Let everybody else come to an end."""
        self.over.set()
        self.gone.set()
        for webhook in self.webhooks:
            webhook.close()

    def _prepare(self, tenant: str) -> None:
        caller = self.caller("owner", tenant)
        wanted = {"_max_claim_count": MAX_CLAIMS, "_dead_letter_queue": DEAD}
        must(caller.ask("declare", "PUT", JOBS, wanted))
        webhook = Webhook(tenant, self.history, self.seed)
        self.webhooks.append(webhook)
        wish = {"subscriber": webhook.url, "ttl": 86400, "options": {"_retry_policy": RETRIES}}
        made = must(caller.ask("subscribe", "POST", f"{NEWS}/subscriptions", wish))
        webhook.subscription = made["subscription_id"]
        self.followers.append(Follower(self.caller("follower", tenant), NEWS))
        for number in range(2):
            pushed = Pushed(f"pushed-{number}", tenant, NEWS, self.websocket, self.history)
            pushed.subscribe()
            self.pushed.append(pushed)
        caller.close()

    def _run(self, work: Callable[..., None], caller: Caller, *arguments: Any) -> None:
        def act(caller: Caller) -> None:
            try:
                work(caller, *arguments)
            finally:
                caller.close()

        self.threads.append(self._start(act, caller))

    def _start(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        def act() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                raise

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread

    def _produce(self, caller: Caller, producer: int) -> None:
        number = 0
        while not self.over.wait(caller.random.uniform(0.5, 1.5) * PAUSE):
            number += 1
            queue = NEWS if number % 3 == 0 else JOBS
            name = f"{caller.tenant}/{producer}/{number}"
            values = [f"{name}/{index}" for index in range(caller.random.randint(1, 3))]
            if queue == JOBS and number % POISON == producer:
                values[0] += "!"
            key = f"key/{name}" if producer == 0 else None
            delay = DELAY if queue == JOBS and caller.random.random() < DELAYED else 0
            while caller.post(queue, values, key, delay) == "unknown" and key and not self.over.wait(PAUSE):
                pass

    def _consume(self, caller: Caller) -> None:
        planned: list[Planned] = []
        while not self.over.is_set():
            while planned and planned[0].due < time.monotonic():
                self._acknowledge(caller, heapq.heappop(planned))
            claim, found = caller.claim(JOBS, LEASE, caller.random.randint(1, 6))
            if not found:
                self.over.wait(IDLE)
                continue
            planned += self._work(caller, claim, found)
            heapq.heapify(planned)

    def _work(self, caller: Caller, claim: str, found: list[dict[str, Any]]) -> list[Planned]:
        """Do with the messages of a claim one of the things that workers do; return what is to be deleted later.

        A deletion that comes too late must have no effect: not on what is free again, nor
        on what some slow worker has meanwhile.
        """
        fate = caller.random.random()
        now = time.monotonic()
        todo = [
            Planned(now, claim, message["id"], message["body"])
            for message in found
            if not is_poison(message["body"])
        ]
        if fate < 0.06:
            caller.release(JOBS, claim)
            return []
        if fate < 0.36:
            later = LATE if fate < 0.16 else SLOW
            return [replace(each, due=now + later) for each in todo]
        if fate < 0.44:
            caller.renew(JOBS, claim, LEASE + 2)
        for each in todo:
            self._acknowledge(caller, each)
        return []

    def _assign(self, caller: Caller) -> None:
        """Post to TASKS; every other post has a key, and is repeated until it is answered."""
        number = 0
        while not self.over.wait(caller.random.uniform(0.5, 1.5) * 2 * PAUSE):
            number += 1
            name = f"{caller.tenant}/tasks/{number}"
            values = [f"{name}/{index}" for index in range(caller.random.randint(1, 3))]
            key = f"key/{name}" if number % 2 else None
            delay = DELAY if caller.random.random() < DELAYED else 0
            while caller.post(TASKS, values, key, delay) == "unknown" and key and not self.over.wait(PAUSE):
                pass

    def _take(self, caller: Caller) -> None:
        """Pop from TASKS, and claim beside those who pop: delete, release, or let the lease run out."""
        while not self.over.wait(caller.random.uniform(0.5, 1.5) * 2 * PAUSE):
            if caller.random.random() < POPS:
                caller.pop(TASKS, caller.random.randint(1, 3))
                continue
            claim, found = caller.claim(TASKS, LEASE, caller.random.randint(1, 4))
            fate = caller.random.random()
            if fate < 0.25 and found:
                caller.release(TASKS, claim)
            for message in found if fate >= 0.5 else ():
                caller.delete(TASKS, claim, message["id"], message["body"])

    def _scribble(self, caller: Caller) -> None:
        """Post to SCRATCH, look at it, and purge it."""
        number = 0
        while not self.over.wait(caller.random.uniform(0.5, 1.5) * 2 * PAUSE):
            fate = caller.random.random()
            if fate < PURGES:
                caller.purge(SCRATCH)
            elif fate < PURGES + LOOKS:
                caller.page(SCRATCH, "", PAGE)
            else:
                number += 1
                name = f"{caller.tenant}/{caller.name}/{number}"
                caller.post(SCRATCH, [f"{name}/{index}" for index in range(caller.random.randint(1, 3))])

    def _acknowledge(self, caller: Caller, each: Planned) -> None:
        for _ in range(3):
            if caller.delete(JOBS, each.claim, each.id, each.value) != "unknown":
                return


def must(answer: Any) -> Any:
    """Return an answer; it has to be there."""
    assert answer is not None, "the service does not answer before there are any faults"
    return answer
