"""Points in time as an operator writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from queues.errors import Invalid

_DURATION = re.compile(r"\+?([0-9]{1,10})([smhd]?)").fullmatch
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse(text: str, now: datetime) -> datetime:
    """Return the moment, in UTC, that a text means.

    The text is either a time from now (`90`, `+90`, `90s`, `15m`, `1h`, `30d`) or an ISO 8601
    date and time, in UTC unless it says otherwise. Raises Invalid for any other text.
    """
    found = _DURATION(text)
    try:
        if found:
            return now + timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(
            f"{text!r} is no point in time: write one such as 2030-01-31T12:00:00, or a time from now"
            " in seconds or such as 15m, 1h or 30d."
        ) from error
