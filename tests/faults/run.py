"""A run: a world, a load, a nemesis; then everything is healed, drained and checked."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.acceptance.processes import wait_until
from tests.faults import checkers, delivery_order, fan_out, leases, removals
from tests.faults.caller import Caller
from tests.faults.history import History, read
from tests.faults.load import DEAD, JOBS, NEWS, QUEUES, TASKS, TENANTS, Load, is_poison
from tests.faults.nemesis import Period, digest, rage, schedule
from tests.faults.node import LEASE
from tests.faults.report import Report
from tests.faults.subscribers import PAGE, Webhook
from tests.faults.tools import Tools, find_tools
from tests.faults.verdict import Verdict, chosen
from tests.faults.world import World

CHECKERS: tuple[Callable[[checkers.History], Verdict], ...] = (
    *(checkers.total_queue, checkers.acked_stays_acked, leases.one_live_lease, leases.fencing),
    *(
        leases.posting_order,
        delivery_order.delivery_order,
        delivery_order.delays,
        checkers.follows,
        checkers.conservation,
    ),
    *(removals.purges, checkers.idempotent_posts, checkers.dead_letters),
    *(fan_out.webhooks, fan_out.pushes),
    *(checkers.isolation, checkers.answers, fan_out.availability),
)

DRAIN = 90.0  # seconds until everything must have come out when all faults are over
WARM = 1.0  # seconds of load before the first fault


@dataclass(frozen=True, kw_only=True)
class Options:
    """What makes up a run. The same options make the same faults at the same times."""

    store: str
    seed: int
    seconds: float  # of faults and quiet times
    quiet: tuple[float, float] = (1.0, 12.0)  # seconds behind each fault, from and to
    without: tuple[str, ...] = ()  # with what the names of faults begin that are left out
    folder: Path  # where history, logs and report go; emptied before

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.store}-{self.seed}"


def plan(options: Options, tools: Tools) -> list[Period]:
    """Return the faults that are made in a run, which is the same for the same options."""
    facts = (options.store, tools, options.seed, options.seconds, options.quiet, options.without)
    return schedule(*facts)


def run(options: Options) -> Report:
    """Make a run and check it. One that comes to no end, since a service does not recover, is not valid."""
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    tools = find_tools(options.folder / "tools")
    history = History(options.folder / "history.jsonl")
    periods = plan(options, tools)
    drawn = {"digest": digest(periods), "periods": [period.document() for period in periods]}
    (options.folder / "plan.json").write_text(json.dumps(drawn, indent=2) + "\n")
    try:
        _make(options, tools, history, periods)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        history.note("run", "broken off", reason=reason, traceback=traceback.format_exc())
    finally:
        history.close()
    report = check(options, absent=tools.absent)
    report.write(options.folder)
    return report


def _make(options: Options, tools: Tools, history: History, periods: Sequence[Period]) -> None:
    with World(options.store, options.folder / "world", tools, history) as world:
        load = Load(
            history=history,
            seed=f"{options.store}/{options.seed}",
            apis=world.front_ports("api-1", "api-2"),
            websocket=world.front_ports("websocket")[0],
        )
        try:
            load.start()
            stop = threading.Event()
            stop.wait(WARM)
            rage(periods, world, history, stop)
            _drain(world, load, history)
        finally:
            load.close()
            (options.folder / "logs").write_text(world.logs())
        for name, code in world.end().items():
            if code not in (0, -signal.SIGTERM):  # one that was just started dies of the signal
                history.note("world", "exit", node=name, code=code)
        for failure in load.failures:
            history.note("load", "failure", reason=failure)
        (options.folder / "logs").write_text(world.logs())


def check(options: Options, *, absent: dict[str, str] | None = None) -> Report:
    """Check the history of a run that was made; of one that was broken off, nothing but that can be said."""
    history = read(options.folder / "history.jsonl")
    broken = [each.answered["reason"] for each in chosen(history, "broken off")]
    ended = Verdict(name="comes to its end", problems=tuple(broken))
    return Report(
        store=options.store,
        seed=options.seed,
        seconds=options.seconds,
        absent=absent or {},
        history=history,
        verdicts=[ended] if broken else [checker(history) for checker in CHECKERS],
    )


def check_folder(folder: Path) -> Report:
    """Check a run again, by what its folder says."""
    known = json.loads((folder / "report.json").read_text())
    options = Options(store=known["store"], seed=known["seed"], seconds=known["seconds"], folder=folder)
    return check(options, absent=known["absent"])


def _drain(world: World, load: Load, history: History) -> None:
    """Wait until everything answers, take out whatever is there, and look at what is left."""
    history.note("world", "all healed")
    world.wait_until_ready()
    history.note("world", "all answer")
    load.stop()
    stored: dict[str, set[str]] = {}
    for tenant in TENANTS:
        auditor = load.caller("auditor", tenant)
        try:
            stored[tenant] = _take_out(auditor)
        finally:
            auditor.close()
    _await_subscribers(load, stored)


def _take_out(auditor: Caller) -> set[str]:
    """Empty JOBS and TASKS, and look at everything; return the values of NEWS."""
    for queue in QUEUES:  # whose last places tell how many messages there ever were
        value = f"{auditor.tenant}/last/{queue}"
        _insist(partial(_is_posted, auditor, queue, value))
    for queue in (JOBS, TASKS):
        _insist(partial(_is_empty, auditor, queue))
    found = {queue: _page_through(auditor, queue) for queue in (*QUEUES, DEAD)}
    return set(found[NEWS])


def _is_posted(auditor: Caller, queue: str, value: str) -> bool:
    return auditor.post(queue, [value], f"key/{value}") == "ok"


def _is_empty(auditor: Caller, queue: str) -> bool:
    """Take out of a queue what there is; tell whether nothing is left."""
    claim, found = auditor.claim(queue, LEASE, 20)
    for message in found:
        if not is_poison(message["body"]):
            auditor.delete(queue, claim, message["id"], message["body"])
    if any(is_poison(message["body"]) for message in found):
        auditor.release(queue, claim)
    return not found and auditor.total(queue) == 0


def _page_through(auditor: Caller, queue: str) -> list[str]:
    """List a queue, and ask for its statistics; return the values."""
    values: list[str] = []
    marker = ""
    while (page := auditor.page(queue, marker, PAGE)) != []:
        marker = page[-1]["id"] if page else marker
        values += [message["body"] for message in page or ()]
    _insist(lambda: auditor.total(queue) is not None)
    return values


def _await_subscribers(load: Load, stored: dict[str, set[str]]) -> None:
    """Give subscribers the time to be told of everything; the checkers say whether they were."""
    deadline = time.monotonic() + DRAIN
    while time.monotonic() < deadline:
        behind = any(stored[each.tenant] - each.taken for each in load.pushed)
        for webhook in load.webhooks:
            missing = stored[webhook.tenant] - webhook.taken
            behind = behind or bool(missing and missing - _given_up(load, webhook))
        if not behind:
            return
        time.sleep(0.3)


def _given_up(load: Load, webhook: Webhook) -> set[str]:
    """Return, and log, the values of the deliveries that were given up."""
    owner = load.caller("owner", webhook.tenant)
    path = f"{NEWS}/subscriptions/{webhook.subscription}/failed?limit=20"
    found = []
    try:
        while page := owner.ask("failed", "GET", path)["deliveries"]:
            found += [each["body"] for each in page]
            path = f"{path.partition('&')[0]}&marker={page[-1]['id']}"
    finally:
        owner.close()
    load.history.note("owner", "given up", webhook.tenant, NEWS, values=found)
    return set(found)


def _insist(done: Callable[[], bool]) -> None:
    wait_until(done, "the service does what it is asked for after all faults", DRAIN)
