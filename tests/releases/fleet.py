"""Processes of two releases over one store, which are exchanged one by one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import GONE, Hermod, wait_until
from tests.releases import leavings
from tests.releases.ledger import Ledger
from tests.releases.sockets import answers


@dataclass
class Fleet:
    """Two REST processes, a websocket process, a notifier and a janitor, each of one release or the other."""

    make: MakeHermod
    store: str
    release: Path  # the packages of the release before
    ledger: Ledger
    apis: list[Hermod] = field(default_factory=list)
    alone: dict[str, Hermod] = field(default_factory=dict)  # the others, by command
    left: int = 0  # queues for janitors

    def start(self) -> None:
        """Start one REST process of each release, and all others of the old one."""
        self.apis = [self._launch("api", old=True), self._launch("api", old=False)]
        self.alone = {name: self._launch(name, old=True) for name in ("websocket", "notifier")}
        wait_until(lambda: all(map(_pings, self.apis)), "the services answer")
        wait_until(lambda: answers(self.alone["websocket"]), "the websocket service answers")
        self.ledger.ports[:] = [api.port for api in self.apis]
        self.ledger.nodes[:] = [self.alone["websocket"].port]
        self.exchange_janitor(old=True)

    def exchange(self, place: int, *, old: bool) -> None:
        """End a REST process, and start another one, of this tree or the old release."""
        going = self.apis[place]
        with self.ledger.lock:
            self.ledger.ports.remove(going.port)
        _end(going)
        self.apis[place] = coming = self._launch("api", old=old)
        wait_until(lambda: _pings(coming), "the service answers")
        with self.ledger.lock:
            self.ledger.ports.append(coming.port)

    def exchange_node(self, *, old: bool) -> None:
        """Start another websocket process beside the one that is there, and end that, so that its clients go over."""
        going, coming = self.alone["websocket"], self._launch("websocket", old=old)
        wait_until(lambda: answers(coming), "the websocket service answers")
        with self.ledger.lock:
            self.ledger.nodes[:] = [coming.port]
        _end(going)
        self.alone["websocket"] = coming

    def exchange_notifier(self, *, old: bool) -> None:
        """Exchange the notifier, once it has told somebody something."""
        told = len(self.ledger.told)
        wait_until(lambda: len(self.ledger.told) > told, "the notifier tells the subscriber")
        _end(self.alone["notifier"])
        self.alone["notifier"] = self._launch("notifier", old=old)

    def exchange_janitor(self, *, old: bool) -> None:
        """Exchange the janitor; the new one reclaims what the other release left, and nobody else does."""
        if "janitor" in self.alone:
            _end(self.alone["janitor"])
        self.left += 1
        queue = f"left-{self.left}"
        self._leave(queue, old=not old)
        with leavings.looking(self.store, queue) as remains:
            assert remains() == leavings.LEFT
            self.alone["janitor"] = self._launch("janitor", old=old)
            wait_until(lambda: remains() == 0, "the janitor reclaims what is over")
        for api in self.apis:
            with api.client() as client:
                stats = client.request("GET", f"/v2/queues/{queue}/stats").document()["messages"]
            assert stats == {"free": 0, "claimed": 0, "total": 0}

    def check_logs(self) -> None:
        """See that nothing went wrong where nothing has ended."""
        for service in (*self.apis, *self.alone.values()):
            assert '"level": "error"' not in service.log

    def _leave(self, queue: str, *, old: bool) -> None:
        if not old:
            leavings.leave(self.store, queue)
            return
        command = (sys.executable, "-P", str(leavings.__file__), self.store, queue)
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(self.release)}, check=True)

    def _launch(self, command: str, *, old: bool) -> Hermod:
        environ = {"HERMOD_EGRESS_ALLOW": "127.0.0.0/8"}
        if old:
            environ["PYTHONPATH"] = str(self.release)
        options = ("--workers", "1") if command in ("api", "websocket") else ()
        service = self.make(command, *options, store=self.store, **environ)
        service.launch()
        return service


def _end(service: Hermod) -> None:
    assert service.stop() == 0, service.log
    assert '"level": "error"' not in service.log


def _pings(api: Hermod) -> bool:
    assert api.process is not None
    assert api.process.poll() is None, api.log
    with contextlib.suppress(*GONE), api.client() as client:
        return client.request("GET", "/v2/ping").status == 204
    return False
