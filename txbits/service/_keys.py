"""
The words of the command line and of the TOML file, in one table.

Both are generated from :data:`KEYS`, so that they cannot disagree on a name, a unit or
what is accepted. Defaults stand where they are used, in
:class:`~txbits.sessions.Settings`, :class:`~txbits.web.Limits` and
:mod:`txbits.service.settings`.
"""

from __future__ import annotations

from difflib import get_close_matches
from math import isfinite
from typing import Any, Literal, Protocol

from attrs import frozen

from txbits.errors import InvalidSetting

#: So many characters of a wrong value are shown.
_LONGEST_SHOWN = 80


def shown(value: object) -> str:
    """
    Write a wrong value into an error message: on one line, and not all of a long one.
    """
    text = str(value).lower() if isinstance(value, bool) else repr(value)
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

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not value:
            raise InvalidSetting(
                f"must be a text that is not empty, not {shown(value)}"
            )
        return value


@frozen
class Texts:
    """One or more texts; the option is repeated for more than one."""

    def parse(self, text: str) -> object:
        return [text]

    def check(self, value: object) -> object:
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
            or not isfinite(value)
            or value < self.minimum
        ):
            a_number = "a whole number" if self.whole else "a number"
            raise InvalidSetting(
                f"must be {a_number} of {self.unit}, at least {self.minimum:g}, "
                f"not {shown(value)}"
            )
        return None if self.zero_is_none and not value else value


@frozen
class Key:
    """
    One setting.

    :ivar name: Its name, with hyphens.
    :ivar scope: Whether it holds for a virtual directory's place (``"place"``), a
        virtual directory's rules (``"rules"``) or the server (``"server"``,
        ``"limits"``).
    :ivar kind: What values it takes.
    :ivar help: What it does, for ``--help``.
    """

    name: str
    scope: Literal["place", "rules", "server", "limits"]
    kind: Kind
    help: str

    @property
    def attribute(self) -> str:
        """The name of the attribute that it becomes."""
        return self.name.replace("-", "_")

    @property
    def of_a_directory(self) -> bool:
        """Whether each virtual directory may have a value of its own."""
        return self.scope in ("place", "rules")

    def checked(self, value: Any, where: str) -> object:
        """
        Check a value as TOML gives it.

        :param where: What the value was given to, such as ``"--mount"``.
        :raises InvalidSetting: With a whole line.
        """
        try:
            return self.kind.check(value)
        except InvalidSetting as error:
            raise InvalidSetting(f"{where}: {error}") from None


#: Times must be over 0; nothing shorter than this, in seconds, is meant seriously.
_LONGER_THAN_A_MOMENT = 0.001

#: All keys, in the order of the help.
KEYS = (
    Key(
        "listen",
        "server",
        Texts(),
        "Endpoint string of Twisted to listen on; may be given more than once.",
    ),
    Key(
        "backend",
        "place",
        Text(),
        "Where uploads are kept, such as memory: or disk:/srv/uploads; "
        "--help-backends lists all kinds.",
    ),
    Key("mount", "place", Text(), "URL prefix that takes uploads."),
    Key("enabled", "rules", Flag(), "Take uploads."),
    Key("allow-overwrites", "rules", Flag(), "Let uploads replace files that exist."),
    Key("create-directories", "rules", Flag(), "Make missing parent directories."),
    Key(
        "max-upload-size",
        "rules",
        Number("bytes", 0, zero_is_none=True),
        "Longest file that is taken, in bytes; 0 for any.",
    ),
    Key(
        "max-fragment-size",
        "rules",
        Number("bytes", 0, zero_is_none=True),
        "Longest fragment that is taken, in bytes; 0 for any.",
    ),
    Key(
        "session-timeout",
        "rules",
        Number("seconds", _LONGER_THAN_A_MOMENT, whole=False),
        "Seconds without progress after which a session is discarded.",
    ),
    Key(
        "session-limit",
        "rules",
        Number("sessions", 0),
        "Sessions that one authenticated user may have open; 0 for any number.",
    ),
    Key(
        "cleanup-interval",
        "rules",
        Number("seconds", _LONGER_THAN_A_MOMENT, whole=False),
        "Seconds between two rounds of the clean-up.",
    ),
    Key(
        "fsync",
        "place",
        Choice(("close", "fragment", "never")),
        "When uploads are made to survive a crash of the machine: close, fragment or "
        "never.",
    ),
    Key(
        "max-connections",
        "limits",
        Number("connections", 1),
        "Connections at the same time.",
    ),
    Key(
        "max-connections-per-peer",
        "limits",
        Number("connections", 1),
        "Connections at the same time from one address.",
    ),
    Key(
        "header-timeout",
        "limits",
        Number("seconds", _LONGER_THAN_A_MOMENT, whole=False),
        "Seconds that a request's headers may take.",
    ),
    Key(
        "body-timeout",
        "limits",
        Number("seconds", _LONGER_THAN_A_MOMENT, whole=False),
        "Seconds within which at least 1 KiB of a body must arrive.",
    ),
    Key(
        "idle-timeout",
        "limits",
        Number("seconds", 120, whole=False),
        "Seconds that a connection may rest between two requests, at least 120: "
        "clients and proxies keep theirs open.",
    ),
)

#: The keys by their names.
BY_NAME = {key.name: key for key in KEYS}
