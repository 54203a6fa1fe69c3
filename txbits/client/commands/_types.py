"""
Words of the command line, as types of its arguments.
"""

from __future__ import annotations

import argparse
import math
import re

from txbits.client._url import InvalidURL, parse_proxy, to_wire
from txbits.client.settings import InvalidSettings, check_header
from txbits.protocol._fields import LocalProtocolError, check_session_id

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_FACTORS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def url(text: str) -> str:
    """Check a URL."""
    try:
        to_wire(text)
    except InvalidURL as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def proxy(text: str) -> str:
    """Check the URL of a proxy."""
    try:
        parse_proxy(text)
    except InvalidURL as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def size(text: str) -> int:
    """Read a number of bytes, at least 1; K, M and G may follow."""
    number = _size(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return number


def length(text: str) -> int:
    """Read a number of bytes, which may be 0."""
    number = _size(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return number


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,18})([KMG]?)", text)
    return int(match[1]) * _FACTORS[match[2]] if match else -1


def duration(text: str) -> float:
    """Read a duration: a number of seconds, or of minutes, hours, days."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)([smhd]?)", text, re.ASCII)
    seconds = float(match[1]) * _UNITS[match[2]] if match else math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a duration, such as 90, 15m, 12h or 14d"
        )
    return seconds


def count(text: str) -> int:
    """Read a number of 1 or more."""
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 9999")
    return int(text)


def session(text: str) -> str:
    """Check the id of a session, which is as the server has written it."""
    try:
        return check_session_id(text)
    except LocalProtocolError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a session's id") from error


def user(text: str) -> str:
    """Check a user's name."""
    if ":" in text:
        # What stands on a command line is seen by all users of a machine.
        raise argparse.ArgumentTypeError(
            "a password on the command line can be seen by others; give the name alone"
        )
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError("that is not the name of a user")
    return text


def header(text: str) -> tuple[str, str]:
    """Read a header, or ``@FILE``, whose name is given with an empty one."""
    if text.startswith("@"):
        return "", text[1:]
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("a header is written NAME: VALUE, or @FILE")
    try:
        check_header(name.strip(), value.strip())
    except InvalidSettings as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name.strip(), value.strip()
