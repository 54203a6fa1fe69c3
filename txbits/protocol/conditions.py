"""
Conditional requests for files.

The rules are those of RFC 9110 13; MC-BUP 3.5.5 requires those of its predecessor.
Windows sends ``If-Unmodified-Since`` with every range after the first.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from enum import Enum, auto

from attrs import frozen

from txbits.protocol._fields import MAX_VALUE_LENGTH, trimmed

#: Header values by lower-case name, in the order of the request.
Headers = Mapping[bytes, Sequence[bytes]]

# RFC 9110 8.8.3: entity-tag = [ weak ] opaque-tag.
_ENTITY_TAG = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')

# RFC 9110 5.6.7: IMF-fixdate, and the two obsolete forms that recipients accept.
_MONTHS = (
    *(b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun"),
    *(b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"),
)
_MONTH = b"(?P<month>" + b"|".join(_MONTHS) + b")"
_TIME = rb"(?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})"
_DATES = tuple(
    re.compile(form)
    for form in (
        rb"[A-Z][a-z]{2}, (?P<day>[0-9]{2}) %b (?P<year>[0-9]{4}) %b GMT"
        % (_MONTH, _TIME),
        rb"[A-Z][a-z]{5,8}, (?P<day>[0-9]{2})-%b-(?P<year>[0-9]{2}) %b GMT"
        % (_MONTH, _TIME),
        rb"[A-Z][a-z]{2} %b (?P<day>[ 0-9][0-9]) %b (?P<year>[0-9]{4})"
        % (_MONTH, _TIME),
    )
)

#: The last second that an HTTP-date can name.
LATEST_DATE = 253_402_300_799

#: How old a time of modification must be, in seconds, to identify one content: a file
#: that was changed recently may have been changed twice within a second.
_STRONG_AFTER = 60


class Verdict(Enum):
    """The outcome of the conditions of a request."""

    PROCEED = auto()
    NOT_MODIFIED = auto()
    FAILED = auto()


@frozen
class Validators:
    """
    What distinguishes one content of a file from another.

    :ivar etag: An entity tag, without its quotes; ``None`` if there is none.
    :ivar modified: When it was last changed, in whole seconds.
    :ivar is_weak: Whether different contents may have the same tag.
    """

    etag: bytes | None
    modified: int
    is_weak: bool = False

    @property
    def quoted(self) -> bytes | None:
        """The value of an ETag header."""
        if self.etag is None:
            return None
        return (b'W/"%b"' if self.is_weak else b'"%b"') % self.etag


def format_date(seconds: int) -> bytes:
    """Write an HTTP-date."""
    return formatdate(seconds, usegmt=True).encode("ascii")


def parse_date(value: bytes, now: int) -> int | None:
    """
    Read an HTTP-date, in any of its three forms.

    :param now: For years of two digits: one that seems to be more than 50 years ahead
        is in the past.
    :returns: Seconds since the epoch; ``None`` if it is not a date.
    """
    if len(value) > MAX_VALUE_LENGTH:
        return None
    match = next((m for form in _DATES if (m := form.fullmatch(value))), None)
    if match is None:
        return None
    year = int(match["year"])
    try:
        if len(match["year"]) == 2:
            this_year = datetime.fromtimestamp(now, UTC).year
            year = this_year + (year - this_year + 49) % 100 - 49
        hour, minute, second = map(int, match["time"].split(b":"))
        day = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            hour,
            minute,
            59 if second == 60 else second,  # a leap second
        )
    except (ValueError, OverflowError):
        return None
    return timegm(day.timetuple())


def examine(headers: Headers, current: Validators, now: int) -> Verdict:
    """
    Evaluate the conditions of a GET or HEAD (RFC 9110 13.2.2).

    :param headers: The request's headers.
    :param current: The present content.
    :param now: The time.
    """
    if (wanted := headers.get(b"if-match")) is not None:
        has_failed = not _matches(wanted, current, weakly=False)
    else:
        since = _date(headers, b"if-unmodified-since", now)
        has_failed = since is not None and current.modified > since
    if has_failed:
        return Verdict.FAILED
    if (had := headers.get(b"if-none-match")) is not None:
        is_known = _matches(had, current, weakly=True)
    else:
        since = _date(headers, b"if-modified-since", now)
        is_known = since is not None and current.modified <= since
    return Verdict.NOT_MODIFIED if is_known else Verdict.PROCEED


def honours_range(headers: Headers, current: Validators, now: int) -> bool:
    """
    Tell whether If-Range allows a Range to be used (RFC 9110 13.1.5).

    :param headers: The request's headers.
    :param current: The present content.
    :param now: The time.
    """
    values = headers.get(b"if-range")
    if values is None:
        return True
    if len(values) != 1:
        return False
    value = trimmed(values[0])
    tag = _ENTITY_TAG.fullmatch(value)
    if tag is not None:
        return tag[1] is None and not current.is_weak and tag[2] == current.etag
    date = parse_date(value, now)
    return date == current.modified and now - current.modified >= _STRONG_AFTER


def _date(headers: Headers, name: bytes, now: int) -> int | None:
    values = headers.get(name, ())
    return parse_date(trimmed(values[0]), now) if len(values) == 1 else None


def _matches(values: Sequence[bytes], current: Validators, *, weakly: bool) -> bool:
    """Whether a list of entity tags, or ``*``, names this content."""
    for value in values:
        if trimmed(value) == b"*":
            return True
        for weak, tag in _ENTITY_TAG.findall(value):
            if tag == current.etag and (weakly or not (weak or current.is_weak)):
                return True
    return False
