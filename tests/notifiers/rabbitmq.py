"""A RabbitMQ of the tests' own, or the one of HERMOD_TEST_RABBITMQ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kombu.connection import Connection
from kombu.exceptions import OperationalError

from tests.notifiers.receivers import make_certificate
from tests.servers import Process, absent, eventually, free_port

#: Distributions put a wrapper on PATH that only root may call, and that changes the user.
_UNWRAPPED = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_CONFIRMED = {"confirm_publish": True}


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A broker, and what a test does to it."""

    url: str
    tls_url: str = ""  # where it wants TLS, with a certificate of its own
    certificate: Path | None = None  # that one
    processes: Sequence[Process] = ()  # none where it is somebody else's

    def start(self) -> None:
        """Start what does not run, and wait until it answers."""
        for process in self.processes:
            if process.process is None:
                process.start()
        eventually(self.answers)

    def kill(self) -> None:
        """End the broker with SIGKILL; what is durable stays."""
        self.processes[-1].kill()

    def is_killed(self) -> bool:
        """Whether it was, and not started since."""
        return self.processes[-1].process is None

    def stop(self) -> None:
        """End it, and remove its folders."""
        for process in reversed(self.processes):
            process.stop()

    def answers(self) -> bool:
        """Whether it can be used."""
        try:
            with self.connected():
                return True
        except OperationalError:
            return False

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Open a channel; a message is published when the broker has confirmed it."""
        with Connection(self.url, connect_timeout=5, transport_options=_CONFIRMED) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            with connection.channel() as channel:
                yield channel


def broker() -> Broker:
    """Make a broker, not yet started; skip the test where there is none to be had."""
    given = os.environ.get("HERMOD_TEST_RABBITMQ")
    if given:
        return Broker(url=given)
    binary = _UNWRAPPED if _UNWRAPPED.exists() else shutil.which("rabbitmq-server")
    if binary is None or shutil.which("epmd") is None:
        absent("rabbitmq", "there is no rabbitmq-server, or no epmd, on PATH")
    names = Process(lambda port, _: ("epmd", "-port", str(port), "-address", "127.0.0.1"))
    tls = free_port()
    server = Process(lambda port, folder: _command(str(binary), port, tls, folder, names.port))
    certificate = server.folder / "certificate.pem"
    return Broker(
        url=f"amqp://guest:guest@127.0.0.1:{server.port}/{quote('/', safe='')}",
        tls_url=f"amqps://guest:guest@127.0.0.1:{tls}/{quote('/', safe='')}",
        certificate=certificate,
        processes=[names, server],
    )


def _command(binary: str, port: int, tls: int, folder: Path, names: int) -> Sequence[str]:
    """Return the command of a server that shares nothing with any other of the machine."""
    _, _, certificate, key = make_certificate(folder, "rabbit.example")
    config = folder / "rabbitmq.conf"
    config.write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\n"
        f"listeners.ssl.1 = 127.0.0.1:{tls}\n"
        f"ssl_options.cacertfile = {certificate}\n"
        f"ssl_options.certfile = {certificate}\n"
        f"ssl_options.keyfile = {key}\n"
        "disk_free_limit.absolute = 1MB\n"
    )
    plugins = folder / "plugins"
    plugins.write_text("[].")
    environ = {
        "HOME": folder,  # of the cookie
        "RUNNING_UNDER_SYSTEMD": "true",  # so that the script becomes the server
        "ERL_EPMD_PORT": names,
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"hermod-{port}@localhost",
        "RABBITMQ_DIST_PORT": free_port(),
        "RABBITMQ_MNESIA_BASE": folder / "data",
        "RABBITMQ_LOG_BASE": folder / "log",
        "RABBITMQ_PID_FILE": folder / "pid",
        "RABBITMQ_CONFIG_FILE": config,
        "RABBITMQ_CONF_ENV_FILE": folder / "none",
        "RABBITMQ_ENABLED_PLUGINS_FILE": plugins,
    }
    return ("env", *(f"{name}={value}" for name, value in environ.items()), binary)
