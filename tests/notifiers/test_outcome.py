from notifiers.outcome import LONGEST_DETAIL, LONGEST_PAUSE, Kind, Outcome


def test_a_detail_is_short():
    assert len(Outcome(kind=Kind.RETRY, detail="x" * 1000).detail) == LONGEST_DETAIL


def test_a_subscriber_may_ask_for_a_day_at_most():
    assert Outcome(kind=Kind.RETRY, retry_after=1e9).retry_after == LONGEST_PAUSE
    assert Outcome(kind=Kind.RETRY, retry_after=-5).retry_after == 0
    assert Outcome(kind=Kind.RETRY).retry_after is None
