"""
What values a setting takes, and what is said about one that it does not take.

Each kind reads a value from the command line, and checks one as TOML gives it.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Protocol
from urllib.parse import urlsplit

from attrs import frozen

from txbits.errors import InvalidSetting
from txbits.protocol._fields import LocalProtocolError, check_host_id
from txbits.protocol.urls import LONGEST_URL
from txbits.web._origin import checked_public_url

#: Numbers over this, be it of bytes or of seconds, are no limits.
_MOST = 2**63

#: So many characters of a wrong value are shown.
_LONGEST_SHOWN = 80


def shown(value: object) -> str:
    """
    Write a wrong value into an error message: on one line, and not all of a long one.
    """
    try:
        text = str(value).lower() if isinstance(value, bool) else repr(value)
    except ValueError:  # Python writes no number of so many digits
        text = "a number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def closest(word: str, words: list[str]) -> str:
    """
    Help someone who has mistyped a word.

    :returns: The end of an error message: what was meant, or nothing.
    """
    matches = get_close_matches(word.replace("_", "-"), words, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


class Kind(Protocol):
    """What values a key takes."""

    def parse(self, text: str) -> object:
        """
        Read a value from the command line; :meth:`check` then decides on it.
        """

    def check(self, value: object) -> object:
        """
        Check a value as TOML gives it.

        :returns: The value as our own classes take it.
        :raises InvalidSetting: If it cannot be used; the text goes behind the key.
        """


@frozen
class Flag:
    """On or off; on the command line it is on if named."""

    def parse(self, text: str) -> object:
        return text

    def check(self, value: object) -> object:
        if not isinstance(value, bool):
            raise InvalidSetting(f"must be true or false, not {shown(value)}")
        return value


@frozen
class Text:
    """Any text that is not empty."""

    def parse(self, text: str) -> object:
        return text

    def check(self, value: object) -> str:
        if not isinstance(value, str) or not value:
            raise InvalidSetting(
                f"must be a text that is not empty, not {shown(value)}"
            )
        return value


@frozen
class Optional:
    """
    A text that may be left away; an empty one in a directory takes back what stands at
    the top of the file.
    """

    def parse(self, text: str) -> object:
        # An empty option is the trace of a variable that is not set, not a wish.
        return text or None

    def check(self, value: object) -> object:
        if value == "":
            return None
        return self.read(Text().check(value))

    def read(self, text: str) -> str:
        """
        Check a text that is not empty.

        :returns: The same.
        :raises InvalidSetting: If it cannot be used.
        """
        return text


class Host(Optional):
    """A host name or an address, and perhaps a port."""

    def read(self, text: str) -> str:
        try:
            return check_host_id(text)
        except LocalProtocolError as error:
            raise InvalidSetting(f"{error}; not {shown(text)}") from None


# They do not belong into a URL, nor into a log.
_NAME_AND_PASSWORD = re.compile("//.*@")


def is_relative(url: str) -> bool:
    """Whether a URL that was found to be right is relative to another one."""
    return not urlsplit(url).scheme


@frozen
class Url(Optional):
    """
    A URL of HTTP.

    :ivar is_prefix: Whether paths are put behind it, so that it can have no query.
    :ivar may_be_relative: Whether it may be the path or the end of another one.
    """

    is_prefix: bool = False
    may_be_relative: bool = False

    def read(self, text: str) -> str:
        told = _NAME_AND_PASSWORD.sub("//...@", text)
        if len(text) > LONGEST_URL:
            raise InvalidSetting(
                f"must have at most {LONGEST_URL:,} characters, not {len(text):,}"
            )
        if not all("!" <= character <= "~" for character in text):
            raise InvalidSetting(
                "must be ASCII without spaces, other characters percent-encoded; "
                f"not {shown(told)}"
            )
        if "#" in text:
            raise InvalidSetting(f"must have no #, not {shown(told)}")
        try:
            parts = urlsplit(text)
            is_port = parts.port is None or parts.port > 0
        except ValueError:
            # What it says may have the end of a password in it.
            raise InvalidSetting(f"is no URL: {shown(told)}") from None
        if self.may_be_relative and not parts.scheme and not parts.netloc:
            return text
        if parts.scheme not in ("http", "https") or not parts.hostname or not is_port:
            raise InvalidSetting(
                f"must begin with http:// or https:// and a host, not {shown(told)}"
            )
        if "@" in parts.netloc:
            raise InvalidSetting(f"must have no user name in it, not {shown(told)}")
        if self.is_prefix:
            if "?" in text:
                raise InvalidSetting(f"must have no ?, not {shown(told)}")
            checked_public_url(text)
        return text


@frozen
class Texts:
    """One or more texts; the option is repeated for more than one."""

    def parse(self, text: str) -> object:
        return [text]

    def check(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise InvalidSetting(f"must be a list of texts, not {shown(value)}")
        return tuple(Text().check(item) for item in value)


@frozen
class Choice:
    """
    One of a few words.

    :ivar words: The words.
    """

    words: tuple[str, ...]

    def parse(self, text: str) -> object:
        return text

    def check(self, value: object) -> object:
        if not isinstance(value, str) or value not in self.words:
            known = ", ".join(map(repr, self.words))
            raise InvalidSetting(f"must be one of {known}, not {shown(value)}")
        return value


@frozen
class Number:
    """
    A count of something.

    :ivar unit: What it counts, in the plural.
    :ivar minimum: The smallest number that is accepted.
    :ivar whole: Whether it must be whole.
    :ivar zero_is_none: Whether 0 stands for "no limit" and is given on as ``None``.
    """

    unit: str
    minimum: float
    whole: bool = True
    zero_is_none: bool = False

    def parse(self, text: str) -> object:
        for read in (int, float):
            try:
                return read(text)
            except ValueError:
                continue
        return text

    def check(self, value: object) -> object:
        # A bool is an int to Python, and "session-limit = true" a mistake to everyone.
        kinds = (int,) if self.whole else (int, float)
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds)
            or not -_MOST <= value <= _MOST
            or value < self.minimum
        ):
            a_number = "a whole number" if self.whole else "a number"
            raise InvalidSetting(
                f"must be {a_number} of {self.unit}, at least {self.minimum:g}, "
                f"not {shown(value)}"
            )
        return None if self.zero_is_none and not value else value


@frozen
class Proxies:
    """
    Addresses and networks, and ``unix`` for who comes over a socket of the file
    system; the option is repeated for more than one.
    """

    def parse(self, text: str) -> object:
        return [text]

    def check(self, value: object) -> object:
        if value == []:
            return ()
        texts = Texts().check(value)
        for text in texts:
            self._check(text)
        return texts

    def _check(self, text: str) -> None:
        try:
            if text != "unix":
                ip_network(text)
        except ValueError:
            raise InvalidSetting(
                "must be a list of addresses, networks such as 10.0.0.0/8, or unix, "
                f"not {shown(text)}"
            ) from None
