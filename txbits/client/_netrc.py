"""
Passwords from a netrc file, read as curl reads it.

There is no standard for these files. What curl and its manual say of them is what most
people have learnt: an entry begins with ``machine`` or ``default`` and goes on to the
next; words stand on as many lines as one likes, in quotes if they have blanks in them;
words that are not known are passed over; a port counts nowhere; and who else can read
the file is its owner's affair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import define

# What begins with a quote ends with one; within, a backslash makes the next character
# an ordinary one. A quote within a word is part of it.
_WORD = re.compile(
    r"""[ \t\r\n]*(?:
        "(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)"
        | (?P<plain>[^"\ \t\r\n][^\ \t\r\n]*)
    )""",
    re.DOTALL | re.VERBOSE,
)
_BLANKS = re.compile(r"[ \t\r\n]*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}

# The body of a macro ends with an empty line.
_EMPTY_LINE = re.compile(r"\n\r*\n")


@define
class _Entry:
    """The entry of one ``machine`` or ``default``."""

    is_for_host: bool
    login: str | None = None
    password: str | None = None


def password_of(user: str, host: str, text: str) -> str | None:
    """
    Find a password.

    The first entry counts that is for the host, for the user or any user, and has a
    password.

    :param host: A name, or an address without brackets.
    :param text: The content of the file.
    :raises ValueError: If a quote in it has no end.
    """
    for entry in _entries(host, text):
        is_for_user = entry.login in (None, user)
        if entry.is_for_host and is_for_user and entry.password is not None:
            return entry.password
    return None


def _entries(host: str, text: str) -> Iterator[_Entry]:
    words = _Words(text)
    entry = _Entry(is_for_host=False)
    while (word := words.next()) is not None:
        keyword = word.lower()
        if keyword in ("machine", "default", "macdef"):
            yield entry
            entry = _Entry(is_for_host=keyword == "default")
        if keyword == "machine":
            entry.is_for_host = (words.next() or "").lower() == host.lower()
        elif keyword == "macdef":
            words.skip_macro()
        elif keyword == "login":
            entry.login = words.next()
        elif keyword == "password":
            entry.password = words.next()
        elif keyword == "account":
            words.next()
    yield entry


class _Words:
    """The words of a file, one after the other."""

    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        # Only whole lines are comments: a password may have the sign in it.
        kept = [line for line in lines if not line.lstrip(" \t").startswith("#")]
        self._text = "\n".join(kept)
        self._position = 0

    def next(self) -> str | None:
        match = _WORD.match(self._text, self._position)
        if match is None:
            if _BLANKS.fullmatch(self._text, self._position) is None:
                raise ValueError("unterminated quote")
            return None
        self._position = match.end()
        if match["plain"] is not None:
            return match["plain"]
        return _ESCAPED.sub(
            lambda found: _ESCAPES.get(found[1], found[1]), match["quoted"]
        )

    def skip_macro(self) -> None:
        match = _EMPTY_LINE.search(self._text, self._position)
        self._position = len(self._text) if match is None else match.end()
