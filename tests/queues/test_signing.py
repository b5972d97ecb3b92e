import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queues.errors import BadSignature, Invalid
from queues.signing import METHODS, PATHS, SignedUrl, Signer

NOW = datetime(2026, 11, 20, 21, 59, 27, 986693, tzinfo=UTC)
MESSAGES = "/v2/queues/q1/messages"
EXAMPLE = SignedUrl(
    project="proj1",
    paths=[MESSAGES],
    methods=["DELETE", "GET", "POST"],
    expires="2100-01-01T00:00:00",
    signature="5bccbdc892f63f887406e6d54cddce08e6639572db8b0c73c4b365c260368e3e",
)


@pytest.fixture
def signer():
    return Signer([b"test"])


def allows(
    signer: Signer, shown: SignedUrl, *, method: str = "GET", path: str = MESSAGES, now: datetime = NOW
) -> bool:
    try:
        signer.verify(shown, method=method, path=path, now=now)
    except BadSignature:
        return False
    return True


class TestSigning:
    def test_the_example_of_the_protocol(self, signer):
        expires = datetime(2100, 1, 1, tzinfo=UTC)
        signed = signer.sign(
            "proj1", "q1", paths=["messages"], methods=["POST", "GET", "DELETE"], expires=expires
        )
        assert signed == EXAMPLE
        assert allows(signer, EXAMPLE)

    def test_a_wish_for_nothing_is_reading_messages_for_a_day(self, signer):
        signed = signer.share("proj1", "q1", {}, now=NOW)
        assert (signed.project, signed.paths, signed.methods) == ("proj1", [MESSAGES], ["GET"])
        assert signed.expires == "2026-11-21T21:59:27"
        assert signer.share("proj1", "q1", dict.fromkeys(["paths", "methods", "expires"]), now=NOW) == signed
        assert signer.share("proj1", "q1", {"paths": [], "methods": []}, now=NOW) == signed

    def test_paths_and_methods_are_sorted_and_repeated_methods_kept(self, signer):
        wish = {"paths": ["subscriptions", "claims"], "methods": ["POST", "GET", "POST"]}
        signed = signer.share("p", "q", wish, now=NOW)
        assert signed.paths == ["/v2/queues/q/claims", "/v2/queues/q/subscriptions"]
        assert signed.methods == ["GET", "POST", "POST"]
        assert wish["paths"] == ["subscriptions", "claims"]

    @pytest.mark.parametrize("member", ["path", "project", "urls", "Paths", ""])
    def test_a_wish_has_three_members(self, signer, member):
        with pytest.raises(Invalid, match="known are paths, methods and expires"):
            signer.share("p", "q", {member: []}, now=NOW)

    @pytest.mark.parametrize(
        "paths", ["messages", ["message"], ["messages", "stats"], ["/messages"], [5], [[]], {}, "", 0, False]
    )
    def test_a_wish_is_for_known_paths(self, signer, paths):
        with pytest.raises(Invalid, match="list out of messages, subscriptions, claims"):
            signer.share("p", "q", {"paths": paths}, now=NOW)

    @pytest.mark.parametrize("methods", ["GET", ["get"], ["GET", "BREW"], ["GET,POST"], [5], {}, "", 0])
    def test_a8_a_wish_is_for_methods_of_http(self, signer, methods):
        with pytest.raises(Invalid, match="list out of GET, HEAD, POST, PUT, PATCH, DELETE"):
            signer.share("p", "q", {"methods": methods}, now=NOW)

    def test_without_a_key_nothing_is_signed(self):
        with pytest.raises(Invalid, match="no secret key"):
            Signer([]).share("p", "q", {}, now=NOW)


class TestExpiry:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-11-20T22:00:27", "2026-11-20T22:00:27"),
            ("2026-11-20T22:00:27.986693", "2026-11-20T22:00:27"),
            ("2026-11-20T22:00:27Z", "2026-11-20T22:00:27"),
            ("2026-11-20T22:00:27+00:00", "2026-11-20T22:00:27"),
            ("2026-11-21T03:30:27+05:30", "2026-11-20T22:00:27"),
            ("2026-11-20T17:00:27.5-05:00", "2026-11-20T22:00:27"),
            ("2026-11-20 22:00:27", "2026-11-20T22:00:27"),
            ("9999-12-31T23:59:59", "9999-12-31T23:59:59"),
        ],
    )
    def test_it_is_told_in_utc_without_fractions(self, signer, text, expected):
        signed = signer.share("proj1", "q1", {"expires": text}, now=NOW)
        assert signed.expires == expected
        assert allows(signer, signed)

    @pytest.mark.parametrize(
        "value",
        [
            5,
            4000000000,
            1.5,
            True,
            False,
            [],
            {},
            "",
            "5",
            "4000000000",
            " 4000000000 ",
            "+4000000000",
            "21000101",
            "tomorrow",
            "2100-13-01T00:00:00",
            "2100-02-30T00:00:00",
            "2100-01-01T25:00:00",
            "10000-01-01T00:00:00",
            "9999-12-31T23:59:59-00:01",
            "0001-01-01T00:00:00+00:01",
            "2100-01-01T00:00:00+99:99",
            "2100-01-01T00:00:00\ud800",
            "9" * 5000,
        ],
    )
    def test_what_is_no_date_and_time(self, signer, value):
        with pytest.raises(Invalid, match="must be a date and time"):
            signer.share("p", "q", {"expires": value}, now=NOW)

    @pytest.mark.parametrize(
        "text", ["2026-11-20T21:59:27.986693", "2026-11-20T21:59:28+01:00", "0001-01-01"]
    )
    def test_it_is_in_the_future(self, signer, text):
        with pytest.raises(Invalid, match="must be in the future"):
            signer.share("p", "q", {"expires": text}, now=NOW)

    def test_now_is_not_the_future(self, signer):
        with pytest.raises(Invalid, match="must be in the future"):
            signer.share(
                "p", "q", {"expires": "2026-11-20T22:00:00"}, now=datetime(2026, 11, 20, 22, tzinfo=UTC)
            )

    def test_it_is_compared_as_it_will_be_told(self, signer):
        with pytest.raises(Invalid, match="must be in the future"):
            signer.share("p", "q", {"expires": "2026-11-20T21:59:27.999999"}, now=NOW)

    @settings(deadline=None)
    @given(st.text() | st.datetimes().map(datetime.isoformat))
    def test_whatever_comes_is_read_or_refused(self, text):
        try:
            signed = Signer([b"k"]).share("p", "q", {"expires": text}, now=NOW)
        except Invalid:
            return
        assert datetime.fromisoformat(signed.expires).replace(tzinfo=UTC) >= NOW - timedelta(seconds=1)


class TestVerifying:
    @settings(deadline=None)
    @given(
        st.text(min_size=1, max_size=256).filter(lambda project: "\\n" not in project),
        st.lists(st.sampled_from(PATHS), min_size=1, unique=True),
        st.lists(st.sampled_from(METHODS), min_size=1),
    )
    def test_what_was_signed_is_allowed(self, project, paths, methods):
        signer = Signer([b"key"])
        signed = signer.share(project, "q.1", {"paths": paths, "methods": methods}, now=NOW)
        for path in PATHS:
            for method in METHODS:
                allowed = allows(signer, signed, method=method, path=f"/v2/queues/q.1/{path}")
                assert allowed == (path in paths and method in methods)

    def test_sub_resources_are_allowed(self, signer):
        assert allows(signer, EXAMPLE, path=f"{MESSAGES}/0000000000000001")
        assert allows(signer, EXAMPLE, path=f"{MESSAGES}/")

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/",
            "/v2/queues/q1",
            "/v2/queues/q1/claims",
            "/v2/queues/q1/messages2",
            "/v2/queues/q1/message",
            "/v2/queues/q2/messages",
            "/v2/queues/xv2/queues/q1/messages",
            "/other/v2/queues/q1/messages",
            "/v2/queues/other/claims/v2/queues/q1/messages",
            "v2/queues/q1/messages",
        ],
    )
    def test_a7_a_path_is_not_searched_for_within_another(self, signer, path):
        assert not allows(signer, EXAMPLE, path=path)

    def test_a7_a_full_stop_is_a_full_stop(self, signer):
        signed = signer.share("p", "a.b", {}, now=NOW)
        assert allows(signer, signed, path="/v2/queues/a.b/messages")
        assert not allows(signer, signed, path="/v2/queues/axb/messages")

    def test_a7_an_empty_path_allows_nothing(self, signer):
        signed = signer.sign("p", "q1", paths=[], methods=["GET"], expires=NOW + timedelta(days=1))
        for paths in ([], [""]):
            for path in (MESSAGES, "/", ""):
                assert not allows(signer, replace(signed, paths=paths), path=path)

    def test_the_order_of_the_lists_does_not_matter(self, signer):
        wish = {"paths": ["messages", "claims"], "methods": ["GET", "POST"]}
        signed = signer.share("p", "q1", wish, now=NOW)
        turned = replace(signed, paths=signed.paths[::-1], methods=signed.methods[::-1])
        assert allows(signer, turned)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"project": "proj2"},
            {"project": ""},
            {"paths": [MESSAGES, "/v2/queues/q1/claims"]},
            {"paths": [MESSAGES.upper()]},
            {"methods": ["GET"]},
            {"methods": ["DELETE", "GET", "POST", "PUT"]},
            {"methods": []},
            {"expires": "2100-01-01T00:00:01"},
            {"expires": "2100-01-01T00:00:00+01:00"},
            {"expires": "someday"},
            {"expires": ""},
            {"expires": "9999-12-31T23:59:59-23:59"},
            {"signature": ""},
            {"signature": "0" * 64},
            {"signature": EXAMPLE.signature[:-1]},
            {"signature": EXAMPLE.signature + "0"},
            {"signature": EXAMPLE.signature.upper()},
        ],
    )
    def test_nothing_shown_can_be_changed(self, signer, wrong):
        assert not allows(signer, replace(EXAMPLE, **wrong))

    @pytest.mark.parametrize("method", ["PUT", "HEAD", "get", "", "GET,POST"])
    def test_only_the_signed_methods_are_allowed(self, signer, method):
        assert not allows(signer, EXAMPLE, method=method)

    def test_it_is_over_at_the_instant_it_expires(self, signer):
        expires = datetime(2100, 1, 1, tzinfo=UTC)
        assert allows(signer, EXAMPLE, now=expires - timedelta(microseconds=1))
        assert not allows(signer, EXAMPLE, now=expires)
        assert not allows(signer, EXAMPLE, now=expires.astimezone(timezone(timedelta(hours=5))))

    def test_the_instant_may_be_written_with_its_zone(self, signer):
        assert allows(signer, replace(EXAMPLE, expires="2100-01-01T00:00:00Z"))
        assert allows(signer, replace(EXAMPLE, expires="2100-01-01T01:00:00+01:00"))

    @pytest.mark.parametrize("field", ["project", "expires", "signature"])
    def test_half_a_surrogate_pair_is_just_wrong(self, signer, field):
        assert not allows(signer, replace(EXAMPLE, **{field: "\ud800"}))
        assert not allows(signer, replace(EXAMPLE, paths=[MESSAGES, "\ud800"]))
        assert not allows(signer, replace(EXAMPLE, methods=["GET", "\ud800"]))

    def test_a8_the_first_key_signs_and_all_verify(self):
        old, both, new = Signer([b"old"]), Signer([b"new", b"old"]), Signer([b"new"])
        before, after = (each.share("p", "q1", {}, now=NOW) for each in (old, both))
        assert allows(both, before)
        assert allows(both, after)
        assert allows(new, after)
        assert not allows(old, after)
        assert not allows(new, before)

    def test_without_a_key_nothing_is_genuine(self):
        assert not allows(Signer([]), EXAMPLE)

    def test_a_project_cannot_sign_for_another(self, signer):
        # Written down, project `GET\nvictim` with its method in front looks like project victim.
        wish = {"paths": ["claims", "messages"]}
        with pytest.raises(Invalid, match="project with this id"):
            signer.share("GET\\nvictim", "q", wish, now=NOW)

    def test_what_such_a_project_got_signed_elsewhere_is_refused(self, signer):
        paths = ["/v2/queues/q/claims", "/v2/queues/q/messages"]
        text = ",".join(paths) + "\\nGET\\nGET\\nvictim\\n2100-01-01T00:00:00"
        shown = SignedUrl(
            project="victim",
            paths=[paths[0], paths[1] + "\\nGET"],
            methods=["GET"],
            expires="2100-01-01T00:00:00",
            signature=hmac.new(b"test", text.encode(), hashlib.sha256).hexdigest(),
        )
        assert not allows(signer, shown, path=paths[0])

    def test_no_project_is_not_a_project_called_none(self, signer):
        signed = signer.share("None", "q1", {}, now=NOW)
        assert allows(signer, signed)
        assert not allows(signer, replace(signed, project=""))
        with pytest.raises(Invalid):
            signer.share("", "q1", {}, now=NOW)
