"""
Kinds of values that settings have, and error messages for values of other kinds.

Each kind reads a value from the command line, and checks one as TOML gives it. Bounds
and alternatives are validators of the settings' classes instead.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from urllib.parse import unquote_to_bytes

from attrs import frozen

from txbits._units import DURATIONS, SIZES, parse_duration, parse_size
from txbits._workers import MOST_WORKERS
from txbits.errors import InvalidSetting
from txbits.protocol._fields import LocalProtocolError, check_host_id
from txbits.protocol.urls import LONGEST_URL
from txbits.web._origin import TrustedProxies

#: Numbers beyond these are mistakes, whether of bytes or of seconds; 0 may be none.
_LEAST, _MOST = 0.001, 2**63

#: How many characters of a wrong value an error message shows.
_LONGEST_SHOWN = 80


def shown(value: object) -> str:
    """Write a wrong value into an error message, on one line and shortened."""
    try:
        text = str(value).lower() if isinstance(value, bool) else repr(value)
    except ValueError:  # Python does not print numbers of that many digits.
        text = "a number with thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def closest(word: str, words: list[str]) -> str:
    """
    Suggest what was meant by a mistyped word.

    :returns: The end of an error message; empty if no word is similar.
    """
    matches = get_close_matches(word.replace("_", "-"), words, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


class Kind(ABC):
    """The kind of values that a setting has."""

    def parse(self, text: str) -> object:
        """Read a value from the command line; :meth:`check` then checks it."""
        return text

    @abstractmethod
    def check(self, value: object) -> object:
        """
        Check a value as TOML gives it.

        :returns: The value as the settings' classes take it.
        :raises InvalidSetting: If it has another kind; the text goes behind the key.
        """


class Flag(Kind):
    """True or false; on the command line, an option without a value."""

    def check(self, value: object) -> object:
        if not isinstance(value, bool):
            raise InvalidSetting(f"must be true or false, not {shown(value)}")
        return value


class Text(Kind):
    """A string that is not empty."""

    def check(self, value: object) -> str:
        if not isinstance(value, str):
            raise InvalidSetting(f"must be a string, not {shown(value)}")
        if not value:
            raise InvalidSetting("must not be empty")
        return value


class Mount(Text):
    """The path of a URL."""

    def check(self, value: object) -> str:
        mount = super().check(value)
        mount_segments(mount)
        return mount


def mount_segments(mount: str) -> tuple[bytes, ...]:
    """
    Split a URL prefix.

    :param mount: Such as ``/``, ``/logs`` or ``/a%20b/c/``; a trailing slash is
        ignored.
    :returns: Its percent-decoded segments.
    :raises InvalidSetting: If it cannot be one; the text goes behind the key.
    """
    if not mount.startswith("/"):
        raise InvalidSetting(f"must begin with a slash, not {shown(mount)}")
    try:
        mount.encode()
    except UnicodeEncodeError:
        raise InvalidSetting(f"must be UTF-8, not {shown(mount)}") from None
    path = mount.removeprefix("/").removesuffix("/")
    if not path:
        return ()
    segments = tuple(unquote_to_bytes(segment) for segment in path.split("/"))
    if "?" in mount or "#" in mount:
        raise InvalidSetting(f"must be a path without ? and #, not {shown(mount)}")
    if any(segment in (b"", b".", b"..") for segment in segments):
        raise InvalidSetting(
            f"must have no empty segment, no '.' and no '..', not {shown(mount)}"
        )
    return segments


class Optional(Kind):
    """
    A string that may be omitted; an empty one in a directory cancels the value from the
    top of the file.
    """

    def parse(self, text: str) -> object:
        # An empty option comes from a variable that is not set: it is a mistake.
        return text or None

    def check(self, value: object) -> object:
        if value == "":
            return None
        if value is None:
            raise InvalidSetting("must not be empty")
        return self.read(Text().check(value))

    def read(self, text: str) -> str:
        """
        Check a string that is not empty.

        :returns: The same.
        :raises InvalidSetting: If it cannot be used.
        """
        return text


class Path(Optional):
    """The path of a URL that may be omitted."""

    def read(self, text: str) -> str:
        mount_segments(text)
        return text


class Host(Optional):
    """A host name or an address, with or without a port."""

    def read(self, text: str) -> str:
        try:
            return check_host_id(text)
        except LocalProtocolError as error:
            raise InvalidSetting(f"{error}; not {shown(text)}") from None


# What may be a user name and a password, which do not belong in a log.
_USER = re.compile("//.*@")


@frozen
class Url(Optional):
    """
    An HTTP URL.

    :ivar check_url: Raises :class:`~txbits.errors.InvalidSetting` for one that cannot
        be used.
    """

    check_url: Callable[[str], object]

    def read(self, text: str) -> str:
        if len(text) > LONGEST_URL:
            raise InvalidSetting(
                f"must have at most {LONGEST_URL:,} characters, not {len(text):,}"
            )
        try:
            self.check_url(text)
        except InvalidSetting:
            hidden = _USER.sub("//...@", text)
            if hidden == text:
                raise
            raise InvalidSetting(
                f"must be a valid URL without a user name, not {shown(hidden)}"
            ) from None
        return text


@frozen
class Number(Kind):
    """
    A number, or a string with a unit.

    :ivar what: What it must be, for error messages.
    :ivar read: Reads a string, and raises ``ValueError`` if it is wrong; ``None`` if
        strings are.
    :ivar is_whole: Whether the number must be whole.
    """

    what: str
    read: Callable[[str], float] | None = None
    is_whole: bool = True

    def parse(self, text: str) -> object:
        for read in (int, float):
            with suppress(ValueError):
                return read(text)
        return text

    def check(self, value: object) -> object:
        number = value
        if self.read is not None and isinstance(value, str):
            with suppress(ValueError):
                number = self.read(value)
            if isinstance(number, float) and number.is_integer():
                number = int(number)
        # A bool is an int to Python, but "session-limit = true" is a mistake.
        if (
            isinstance(number, bool)
            or not isinstance(number, int if self.is_whole else (int, float))
            or not (number == 0 or _LEAST <= abs(number) <= _MOST)
        ):
            raise InvalidSetting(f"must be {self.what}, not {shown(value)}")
        return number


class Workers(Kind):
    """How many processes: a number, or ``auto`` for the CPUs that may be used."""

    def parse(self, text: str) -> object:
        return int(text) if text.isascii() and text.isdigit() else text

    def check(self, value: object) -> object:
        if value == "auto":
            return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not 1 <= value <= MOST_WORKERS
        ):
            raise InvalidSetting(
                f"must be a number of processes from 1 to {MOST_WORKERS}, or auto, not "
                f"{shown(value)}"
            )
        return value


_DURATION = f"a duration, such as {DURATIONS}"

SIZE = Number(f"a size, such as {SIZES}", parse_size)
DURATION = Number(_DURATION, parse_duration, is_whole=False)
WHOLE_DURATION = Number(_DURATION, parse_duration)


@frozen
class Texts(Kind):
    """
    A list of strings; the option is repeated for more than one.

    :ivar example: What it looks like in TOML.
    """

    example: str
    may_be_empty: bool = False

    def parse(self, text: str) -> object:
        return [text]

    def check(self, value: object) -> tuple[str, ...]:
        if value == [] and self.may_be_empty:
            return ()
        items = value if isinstance(value, list) else []
        if items and all(isinstance(item, str) and item for item in items):
            return tuple(items)
        raise InvalidSetting(
            f"must be a list of strings, such as {self.example}, not {shown(value)}"
        )


class Proxies(Texts):
    """Addresses, networks, and ``unix``, as a list."""

    def check(self, value: object) -> tuple[str, ...]:
        texts = super().check(value)
        try:
            TrustedProxies(texts)
        except InvalidSetting:
            raise InvalidSetting(
                "must be a list of addresses, networks such as 10.0.0.0/8, or unix, "
                f"not {shown(value)}"
            ) from None
        return texts
