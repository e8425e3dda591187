"""Effective dates: when a movement of money counts in reports. They never affect a decision.

An effective date is a text in canonical form, RFC 3339 in UTC with milliseconds: `2021-03-04T00:00:00.000Z`.
Equal timestamps are equal texts, so results are the same byte for byte, whatever form a client has written.
"""

import re
from datetime import UTC, datetime, timedelta

DETAIL = (
    "`effective_at` must be a date, or a date and time with an offset, as RFC 3339 has them, from 0001-01-01 to"
    " 9999-12-31 in UTC."
)

_FORM = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d)))?", re.ASCII
)


class EffectiveError(ValueError):
    """A text is not an effective date; the message is a sentence that describes one."""


def effective_at(text: str) -> str:
    """Return an effective date in canonical form.

    Args:
        text: an RFC 3339 date and time with its offset, or a date alone, which stands for midnight UTC.
            Fractions of a millisecond are truncated, so that a timestamp stays within its day. A leap second
            becomes the end of the second before it.

    Raises:
        EffectiveError: the text has no such form, or the timestamp is before the year 1 or after the year
            9999.
    """
    matched = _FORM.fullmatch(text)
    if matched is None:
        raise EffectiveError(DETAIL)
    day, minute, second, fraction, _, sign, hours, minutes = matched.groups()
    milliseconds = (fraction or "")[:3].ljust(3, "0")
    if second == "60":
        second, milliseconds = "59", "999"
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if int(hours or 0) > 23 or int(minutes or 0) > 59:
        raise EffectiveError(DETAIL)
    try:
        moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}.{milliseconds}")
        return text_of(moment + ahead if sign == "-" else moment - ahead)
    except (ValueError, OverflowError):
        raise EffectiveError(DETAIL) from None


def text_of(moment: datetime) -> str:
    """Return a timestamp in canonical form; fractions of a millisecond are truncated.

    A timestamp without an offset is in UTC.
    """
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='milliseconds')}Z"
