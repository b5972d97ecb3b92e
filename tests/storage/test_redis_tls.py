"""Redis over TLS: the certificate is checked."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from queues.errors import StoreUnavailable
from queues.ports import Driver
from storage.registry import connect
from tests import servers
from tests.storage.probe import Clock, Probe, bodies
from tests.storage.test_watching import Bell


def certify(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hermod test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def _answers(driver: Driver) -> bool:
    try:
        driver.messages.durability()
    except StoreUnavailable:
        return False
    return True


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Start a Redis that speaks TLS only; yield its port and certificate."""
    binary = servers.redis_binary()
    certificate, key = certify(tmp_path)
    process = servers.Process(
        lambda port, folder: servers.redis_command(
            binary,
            0,
            folder,
            *("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"),
        )
    )
    # The first directive that it does not know is the one that it names.
    refusal = subprocess.run([binary, "--tls-port", "0", "--nonsense"], capture_output=True, check=False)
    if b"tls-port" in refusal.stdout + refusal.stderr:
        pytest.skip("this redis-server was built without TLS")
    process.start()
    uri = f"rediss://127.0.0.1:{process.port}/0?ssl_ca_certs={certificate}"
    try:
        with closing(connect(uri, timeout=1.0)) as driver:
            servers.eventually(lambda: _answers(driver))
        yield process.port, certificate
    finally:
        process.stop()


def test_messages_travel_encrypted(tls_server):
    port, certificate = tls_server
    clock = Clock()
    with closing(connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}", clock=clock)) as driver:
        queue = Probe(driver.messages, clock)
        queue.post("a", "b")
        assert bodies(queue.claim(10).messages) == ["a", "b"]


@pytest.mark.parametrize("protocol", [2, 3])
def test_who_watches_is_told_over_an_encrypted_connection(tls_server, monkeypatch, protocol):
    monkeypatch.setattr("storage.redis_listener._CHECK", 0.05)
    port, certificate = tls_server
    clock = Clock()
    uri = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}&protocol={protocol}"
    with closing(connect(uri, clock=clock)) as driver:
        queue, bell = Probe(driver.messages, clock), Bell()
        driver.messages.watch(queue.address, bell)
        assert bell.heard()
        for number in range(200):
            queue.post(str(number))
            assert bell.heard()


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_server):
    port, _ = tls_server
    with (
        closing(connect(f"rediss://127.0.0.1:{port}/0", timeout=1.0)) as driver,
        pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        driver.messages.durability()


def test_a_client_that_speaks_in_the_clear_gets_no_answer(tls_server):
    port, _ = tls_server
    with (
        closing(connect(f"redis://127.0.0.1:{port}/0", timeout=1.0)) as driver,
        pytest.raises(StoreUnavailable),
    ):
        driver.messages.durability()
