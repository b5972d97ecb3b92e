"""Where webhooks may go: no tenant may make this service call into its operator's network.

Three walls, each of which would do for most attacks: the URL is checked before anything else,
every address that a name resolves to is judged, and so is the one address that is dialled.
Only the dialled address counts in the end, so an answer of the DNS that changes is no way in.
The table follows the IANA registries of special-purpose addresses (RFC 6890 and its successors).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, ClassVar
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from notifiers.outcome import Undeliverable

#: Ports of services that are not HTTP and could be talked into something by it.
DENIED_PORTS = frozenset(
    {
        *(0, 7, 9, 13, 19, 20, 21, 22, 23, 25, 53, 69, 79, 110, 111, 119, 123, 135, 137, 138, 139, 143),
        *(161, 179, 389, 445, 465, 512, 513, 514, 515, 587, 636, 873, 990, 993, 995),
        *(1433, 1521, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5432, 5672, 5900, 6000),
        *(6379, 6667, 9042, 9092, 9200, 9300, 10250, 11211, 16379, 26379, 27017, 27018, 27019),
    }
)
LONGEST_URL = 2048  # characters

_BLOCKED_V4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # behind a carrier's NAT
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local; the metadata services of clouds
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
)
_BLOCKED_V6 = (
    "::/96",  # unspecified, loopback, and IPv4-compatible
    "64:ff9b::/96",  # NAT64
    "64:ff9b:1::/48",  # NAT64 of a site
    "100::/64",  # discard
    "2001::/32",  # Teredo
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4
    "3fff::/20",  # documentation
    "5f00::/16",  # segment routing
    "fc00::/7",  # private; fd00:ec2::254 is a metadata service
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local
    "ff00::/8",  # multicast
)

_NETWORKS_V4 = tuple(IPv4Network(text) for text in _BLOCKED_V4)
_NETWORKS_V6 = tuple(IPv6Network(text) for text in _BLOCKED_V6)

#: Networks whose addresses lead to an IPv4 address, and how it is read from the bits.
_CARRIERS: Mapping[IPv6Network, Callable[[int], int]] = {
    IPv6Network("::/96"): lambda bits: bits & 0xFFFF_FFFF,
    IPv6Network("64:ff9b::/96"): lambda bits: bits & 0xFFFF_FFFF,
    IPv6Network("2002::/16"): lambda bits: bits >> 80 & 0xFFFF_FFFF,
    IPv6Network("2001::/32"): lambda bits: ~bits & 0xFFFF_FFFF,  # Teredo turns the bits over
}

_NAME = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?", re.I
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.I)


class EgressRefused(Undeliverable):
    """The subscriber's address is not one that this service may call."""

    code: ClassVar[str] = "egress-refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class EgressPolicy:
    """Which addresses and ports webhooks may go to; ValueError for networks that are none."""

    allow: Sequence[str] = ()  # networks (CIDR) that are allowed though they are on the list
    denied_ports: frozenset[int] = DENIED_PORTS  # of no URL
    only_ports: frozenset[int] = frozenset()  # where there are any, all others are denied
    _allowed: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A frozen instance can only be changed this way.
        object.__setattr__(self, "_allowed", tuple(ip_network(text) for text in self.allow))

    def judge(self, address: str) -> None:
        """Return if an IP address may be dialled; raises EgressRefused, also for what is no address."""
        try:
            parsed = ip_address(address)
        except ValueError as error:
            raise EgressRefused from error
        if not self._may_dial(parsed):
            raise EgressRefused

    def judge_port(self, port: int) -> None:
        """Return if a port may be dialled; raises EgressRefused."""
        if port in self.denied_ports or (self.only_ports and port not in self.only_ports):
            raise EgressRefused("The port of the subscriber's address is not one that this service may call.")

    def check_url(self, text: str) -> URL:
        """Return a URL as it is going to be called.

        The address of a host that is a name is left to `GuardedResolver`.

        Raises EgressRefused for other schemes than http and https, user names, forbidden ports,
        IP addresses that may not be dialled or are written in an unusual way, and what is no URL.
        """
        url, host = _parse(text)
        self.judge_port(url.port or 0)
        if ":" in host or _last_label(host).isdigit():
            self.judge(host)
        return url

    def _may_dial(self, address: IPv4Address | IPv6Address) -> bool:
        if isinstance(address, IPv4Address):
            return self._is_allowed(address) or not _is_in(address, _NETWORKS_V4)
        if address.ipv4_mapped is not None:
            return self._may_dial(address.ipv4_mapped)
        plain = IPv6Address(int(address))  # without the name of an interface
        if not self._is_allowed(plain):
            return not _is_in(plain, _NETWORKS_V6)
        # To allow a carrier, such as NAT64, is not to allow everything that it leads to.
        return all(
            self._may_dial(IPv4Address(read(int(plain))))
            for network, read in _CARRIERS.items()
            if plain in network and not self._is_allowed_below(plain, network)
        )

    def _is_allowed(self, address: IPv4Address | IPv6Address) -> bool:
        return _is_in(address, self._allowed)

    def _is_allowed_below(self, address: IPv6Address, carrier: IPv6Network) -> bool:
        """Whether a network narrower than the carrier was allowed, which then is what was meant."""
        return any(
            isinstance(network, IPv6Network) and network.prefixlen > carrier.prefixlen and address in network
            for network in self._allowed
        )


class GuardedResolver(AbstractResolver):
    """Passes on what another resolver finds, if all of it may be dialled."""

    def __init__(self, policy: EgressPolicy, inner: AbstractResolver) -> None:
        self._policy = policy
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return all addresses of a host.

        Raises EgressRefused if one of them may not be dialled, or there is none; OSError if the
        name cannot be resolved.
        """
        found = await self._inner.resolve(host, port, family)
        if not found:
            raise EgressRefused
        for result in found:
            self._policy.judge(result["host"])
            self._policy.judge_port(result["port"])
        return found

    async def close(self) -> None:
        """Close the other resolver."""
        await self._inner.close()


def guarded_sockets(policy: EgressPolicy) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Return a factory of sockets for aiohttp, which is called with the address that is about to be dialled.

    It raises EgressRefused before there is a socket. Nothing should come that far.
    """

    def open_socket(target: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = target
        policy.judge(address[0])
        return socket.socket(family=family, type=kind, proto=protocol)

    return open_socket


def _parse(text: str) -> tuple[URL, str]:
    """Return a URL and its host, as sent; raises EgressRefused."""
    try:
        # Characters that some parsers drop and others do not.
        if len(text) > LONGEST_URL or re.search(r"[\x00-\x20\x7f\\]", text) or "@" in urlsplit(text).netloc:
            raise EgressRefused("The subscriber is not a plain URL: it must have no user name and no blanks.")
        url = URL(text)
        host = url.raw_host or ""
        if url.scheme not in ("http", "https") or not _is_plain(host):
            raise EgressRefused("The subscriber must be an http or https URL with a host of the usual form.")
    except ValueError as error:
        raise EgressRefused("The subscriber is not a valid URL.") from error
    return url, host


def _is_plain(host: str) -> bool:
    """Whether a host is a name, or an IP address in its usual form.

    What ends in a number is an address (WHATWG URL), and 127.1 or 0x7f.0.0.1 are unusual ones.
    """
    if ":" in host:
        return "%" not in host  # an interface means something to this machine only
    if not _NAME.fullmatch(host) or len(host) > 254:
        return False
    return not _NUMBER.fullmatch(_last_label(host)) or _is_address(host)


def _last_label(host: str) -> str:
    return host.rstrip(".").rpartition(".")[2]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
