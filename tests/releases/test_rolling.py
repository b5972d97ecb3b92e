"""P13: processes of the release before and of this tree serve one store side by side, and are exchanged one by one.

Producers and consumers go on meanwhile, over REST and over websockets. A request may be cut off by the end of a process; none
is refused, nothing is lost, and with an idempotency key nothing is stored twice. A webhook is told of everything, by
notifiers of both, and so are those who are connected, by websocket processes of both: once, in order, and without a gap,
though they subscribed at a process of the other release. What is over is reclaimed by janitors of both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeHermod, hermod, shared_store  # noqa: F401 - fixtures
from tests.acceptance.processes import wait_until
from tests.releases import previous
from tests.releases.connected import Follower
from tests.releases.crowd import load, webhook
from tests.releases.fleet import Fleet
from tests.releases.ledger import Ledger


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the release before."""
    return previous.unpack(tmp_path_factory.mktemp("release"))


def test_the_release_before_is_what_runs(release: Path, tmp_path: Path) -> None:
    """And not this tree under another name."""
    packages = ", ".join(previous.PACKAGES)
    program = f"import {packages}; print(*(package.__file__ for package in ({packages})))"
    environ = {**os.environ, "PYTHONPATH": str(release)}
    found = subprocess.check_output([sys.executable, "-c", program], env=environ, cwd=tmp_path, text=True)
    assert found.split() == [str(release / package / "__init__.py") for package in previous.PACKAGES]


def test_the_wheel_has_what_the_tag_has(tmp_path: Path, release: Path) -> None:
    previous.from_wheel(previous.newest(), tmp_path)

    def sources(folder: Path) -> dict[str, bytes]:
        found = (path for package in previous.PACKAGES for path in (folder / package).rglob("*"))
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in found
            if path.is_file() and path.suffix != ".pyc"
        }

    assert sources(tmp_path) == sources(release)


@pytest.mark.timeout(240)  # a dozen processes are started, one after the other
def test_releases_are_exchanged_one_process_at_a_time_under_load(
    hermod: MakeHermod,  # noqa: F811 - the fixture
    shared_store: str,  # noqa: F811 - the fixture
    release: Path,
) -> None:
    ledger = Ledger()
    fleet = Fleet(hermod, shared_store, release, ledger)
    with webhook(ledger) as url:
        fleet.start()
        ledger.ask(0, "POST", "/v2/queues/told/subscriptions", {"subscriber": url})
        first = Follower(ledger, "first", binary=False)  # subscribed at the old release
        with load(ledger):
            ledger.flows()
            fleet.exchange_notifier(old=False)
            fleet.exchange(0, old=False)
            ledger.flows()  # the old websocket process passes on what the new notifier writes
            fleet.exchange_node(old=False)
            fleet.exchange_janitor(old=False)  # the end of an upgrade
            second = Follower(ledger, "second", binary=True)  # subscribed at the new one
            ledger.flows()
            fleet.exchange_notifier(old=True)
            fleet.exchange(1, old=True)
            ledger.flows()  # and the other way round
            fleet.exchange_node(old=True)  # and back
            ledger.flows()
        check_messages(fleet, ledger)
        check_told(ledger, first, second)
    fleet.check_logs()


def check_messages(fleet: Fleet, ledger: Ledger) -> None:
    """What was answered is there, or was acknowledged: once, and not both."""
    left = []
    with fleet.apis[1].client() as client:
        for queue in ("work", "told"):
            found = [message["body"] for message in client.everything(queue)]
            stats = client.request("GET", f"/v2/queues/{queue}/stats").document()["messages"]
            assert stats["total"] == len(found)
            left += found
    there = Counter(left)
    assert max(there.values(), default=1) == 1, "a message was stored twice"
    assert not there.keys() & ledger.deleted.keys(), "an acknowledged message is there again"
    assert there.keys() | ledger.deleted.keys() == ledger.stored


def check_told(ledger: Ledger, first: Follower, second: Follower) -> None:
    """Everybody was told of everything, and whoever is connected of each message once, in one order."""
    bodies = {body for body in ledger.stored if body.startswith("told")}
    wait_until(lambda: bodies <= set(ledger.told), "the webhook is told of everything")
    wait_until(lambda: first.has_all(bodies), "whoever is connected is told of everything")
    wait_until(lambda: second.bodies[-1:] == first.bodies[-1:], "and so is who came later")
    first.stop()
    second.stop()
    assert Counter(first.bodies) == Counter(bodies)
    assert second.bodies == first.bodies[-len(second.bodies) :]
    assert len(first.ports) == 3, "it was to be served by the old release, by the new one, and by the old one"
    assert second.ports == first.ports[1:]
