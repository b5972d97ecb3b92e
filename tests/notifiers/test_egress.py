import asyncio
import socket

import pytest

from notifiers.egress import EgressPolicy, EgressRefused, GuardedResolver, guarded_sockets
from notifiers.resolving import SystemResolver
from tests.notifiers.tables import TableResolver

PUBLIC = ["93.184.216.34", "8.8.8.8", "1.1.1.1", "2606:2800:220:1::1", "2a00:1450:4001::1", "::ffff:8.8.8.8"]

# The first and the last address of each network on the list, and where Python's own is_global errs.
BLOCKED = [
    *("0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254", "169.254.255.255"),
    *("172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.8", "192.0.0.255", "192.0.2.1"),
    *("192.88.99.1", "192.168.0.0", "192.168.255.255", "198.18.0.0", "198.19.255.255"),
    *("198.51.100.7", "203.0.113.255", "224.0.0.1", "239.255.255.255", "240.0.0.0", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:10.0.0.1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "64:ff9b:1:ffff::1", "100::1"),
    *("2001::1", "2001:0:ffff::1", "2001:db8::1", "2002:a9fe:a9fe::", "2002:808:808::1", "3fff::1"),
    *("3fff:fff:ffff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "febf::1"),
    *("fec0::1", "feff::1", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
]
BESIDE = [
    *("1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0"),
    *("192.0.3.0", "192.88.98.255", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0"),
    *("203.0.114.0", "223.255.255.255", "64:ff9b:2::1", "100:0:0:1::1", "2001:1::1", "2001:db9::1"),
    *("2003::1", "3fff:1000::1", "5f01::1", "fbff::1", "fe7f::1"),
]
NO_ADDRESSES = ["", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "1.2.3.4/8", "::g", "[::1]"]

POLICY = EgressPolicy()


def resolve(resolver: GuardedResolver, host: str = "hook.example") -> list[str]:
    return [result["host"] for result in asyncio.run(resolver.resolve(host, 443))]


class TestAddresses:
    @pytest.mark.parametrize("address", [*PUBLIC, *BESIDE])
    def test_the_public_ones_may_be_dialled(self, address):
        POLICY.judge(address)

    @pytest.mark.parametrize("address", [*BLOCKED, *NO_ADDRESSES])
    def test_a6_all_on_the_list_are_refused(self, address):
        with pytest.raises(EgressRefused) as refusal:
            POLICY.judge(address)
        assert str(refusal.value) == "The subscriber's address is not one that this service may call."

    @pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3"])
    def test_the_operator_may_allow_networks(self, address):
        EgressPolicy(allow=["10.0.0.0/8"]).judge(address)
        with pytest.raises(EgressRefused):
            EgressPolicy(allow=["10.0.0.0/16"]).judge(address)

    @pytest.mark.parametrize(
        ("carrier", "outward", "inward"),
        [
            ("64:ff9b::/96", "64:ff9b::808:808", "64:ff9b::a9fe:a9fe"),
            ("2002::/16", "2002:808:808::1", "2002:a9fe:a9fe::1"),
            ("2001::/32", "2001::f7f7:f7f7", "2001::5601:5601"),
            ("::/96", "::8.8.8.8", "::127.0.0.1"),
            ("::/0", "64:ff9b::808:808", "64:ff9b::7f00:1"),
        ],
    )
    def test_an_allowed_carrier_is_no_way_in(self, carrier, outward, inward):
        policy = EgressPolicy(allow=[carrier])
        policy.judge(outward)
        with pytest.raises(EgressRefused):
            policy.judge(inward)

    def test_what_was_meant_is_allowed(self):
        EgressPolicy(allow=["::1/128"]).judge("::1")
        EgressPolicy(allow=["64:ff9b::/96", "127.0.0.0/8"]).judge("64:ff9b::7f00:1")

    def test_an_allowed_network_must_be_one(self):
        with pytest.raises(ValueError, match="does not appear"):
            EgressPolicy(allow=["everything"])


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "http://hook.example/a?b=c#d",
            "https://hook.example:8443/",
            "http://my_host.example./",
            "http://8.8.8.8/",
            "http://[2606:2800:220:1::1]:8080/",
            "http://bücher.example/",
            "http://localhost/",  # a name: its addresses are judged
            "http://a1/",
            "HTTP://HOOK.EXAMPLE/",
        ],
    )
    def test_a_plain_url_passes(self, url):
        assert POLICY.check_url(url).scheme in ("http", "https")

    @pytest.mark.parametrize(
        "url",
        [
            *("ftp://hook.example/", "file:///etc/passwd", "gopher://hook.example/", "hook.example", ""),
            *("http://", "http:///path", "http:hook.example", "http://:80/", "//hook.example/"),
            *("http://user@hook.example/", "http://user:secret@hook.example/", "http://@hook.example/"),
            *("http://:@hook.example/", "http://a@b@hook.example/", "http://hook.example\\@evil.example/"),
            *("http://hook.example /", "http://hook\r\n.example/", "http://hook.example/\r\nX: y", "http://\t8.8.8.8"),
            *("http://[::1", "http://hook.example:99999/", "http://hook.example:x/", "http://[fe80::1%25eth0]/"),
            *("http://127.0.0.1/", "http://169.254.169.254/latest/", "http://[::1]/", "http://[::]/"),
            *("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[64:ff9b::a9fe:a9fe]/"),
            *("http://2130706433/", "http://0x7f.1/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/"),
            *("http://0/", "http://127.0.0.1./", "http://127.0.0x1/", "http://1.2.3.4.5/", "http://8.8.8.8./"),
            *("http://\uff11\uff12\uff17.0.0.1/", "http://\u2460\u2461\u2466.0.0.1/", "http://127\u30020\u30020\u30021/", "http://%31%32%37.0.0.1/"),
            *("http://a..b/", "http://.a/", "http://-a/", "http://" + "a" * 64 + "/", "http://a/" + "b" * 2048),
        ],
    )  # fmt: skip
    def test_all_else_is_refused(self, url):
        with pytest.raises(EgressRefused):
            POLICY.check_url(url)

    @pytest.mark.parametrize("port", [0, 22, 25, 2375, 6379, 11211, 27017])
    def test_ports_of_other_services_are_refused(self, port):
        with pytest.raises(EgressRefused, match="port"):
            POLICY.check_url(f"http://hook.example:{port}/")

    def test_the_ports_can_be_set(self):
        EgressPolicy(denied_ports=frozenset()).check_url("http://hook.example:6379/")
        only = EgressPolicy(only_ports=frozenset({443}))
        only.check_url("https://hook.example/")
        with pytest.raises(EgressRefused, match="port"):
            only.check_url("http://hook.example/")

    def test_an_allowed_address_may_be_named(self):
        url = EgressPolicy(allow=["127.0.0.0/8"]).check_url("http://127.0.0.1:8888/")
        assert url.host == "127.0.0.1"


class TestResolving:
    def test_judged_addresses_are_passed_on(self):
        answer = ["93.184.216.34", "2606:2800:220:1::1"]
        assert resolve(GuardedResolver(POLICY, TableResolver(hook_example=[answer]))) == answer

    @pytest.mark.parametrize(
        "answer",
        [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["8.8.8.8", "::ffff:10.0.0.1"], ["fe80::1%2"], ["junk"], []],
    )
    def test_one_blocked_address_refuses_all(self, answer):
        with pytest.raises(EgressRefused):
            resolve(GuardedResolver(POLICY, TableResolver(hook_example=[answer])))

    def test_each_answer_is_judged(self):
        resolver = GuardedResolver(POLICY, TableResolver(hook_example=[["8.8.8.8"], ["127.0.0.1"]]))
        assert resolve(resolver) == ["8.8.8.8"]
        with pytest.raises(EgressRefused):
            resolve(resolver)

    @pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost"])
    def test_spellings_of_loopback_are_seen_through_by_the_system(self, host):
        async def ask() -> None:
            resolver = GuardedResolver(POLICY, SystemResolver(1))
            try:
                await resolver.resolve(host, 80)
            finally:
                await resolver.close()

        with pytest.raises(EgressRefused):
            asyncio.run(ask())

    def test_an_unknown_name_is_no_refusal(self):
        with pytest.raises(OSError, match="no such name"):
            resolve(GuardedResolver(POLICY, TableResolver()))


class TestDialling:
    def test_a_blocked_address_gets_no_socket(self):
        dial = guarded_sockets(POLICY)
        with pytest.raises(EgressRefused):
            dial((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 80)))

    def test_a_public_address_gets_one(self):
        target = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("8.8.8.8", 80))
        with guarded_sockets(POLICY)(target) as opened:
            assert opened.family == socket.AF_INET
