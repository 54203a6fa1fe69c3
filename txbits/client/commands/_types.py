"""
Types of command-line arguments.
"""

from __future__ import annotations

import argparse
import re

from txbits._units import parse_duration, parse_size
from txbits.client._url import InvalidURL, parse_proxy, to_wire
from txbits.client.settings import InvalidSettings, check_header
from txbits.protocol._fields import LocalProtocolError, check_session_id


def url(text: str) -> str:
    """Check a URL."""
    try:
        to_wire(text)
    except InvalidURL as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def proxy(text: str) -> str:
    """Check the URL of a proxy; an empty one is none."""
    if not text:
        return text
    try:
        parse_proxy(text)
    except InvalidURL as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def size(text: str) -> int:
    """Read a size of at least one byte, such as ``20G``."""
    number = length(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1 byte")
    return number


def length(text: str) -> int:
    """Read a size, which may be 0."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def duration(text: str) -> float:
    """Read a duration in seconds, such as ``90`` or ``14d``."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count(text: str) -> int:
    """Read a number of 1 or more."""
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 9999")
    return int(text)


def session(text: str) -> str:
    """Check a session ID, which is written as the server wrote it."""
    try:
        return check_session_id(text)
    except LocalProtocolError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a session ID") from error


def user(text: str) -> str:
    """Check a user name."""
    if ":" in text:
        # All users of the machine can read the command line.
        raise argparse.ArgumentTypeError(
            "other users can see a password on the command line; give the name only"
        )
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError("invalid user name")
    return text


def header(text: str) -> tuple[str, str]:
    """Read a header; ``@FILE`` becomes an empty name and the file's name."""
    if text.startswith("@"):
        return "", text[1:]
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("a header has the form NAME: VALUE, or @FILE")
    try:
        check_header(name.strip(), value.strip())
    except InvalidSettings as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name.strip(), value.strip()
