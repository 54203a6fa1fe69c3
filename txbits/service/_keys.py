"""
The words of the command line and of the TOML file, in one table.

Both are generated from :data:`KEYS`, so that they cannot disagree on a name, a unit or
what is accepted. Defaults stand where they are used, in
:class:`~txbits.sessions.Settings`, :class:`~txbits.web.Limits` and
:mod:`txbits.service.settings`.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from txbits.errors import InvalidSetting
from txbits.service._kinds import (
    Choice,
    Flag,
    Host,
    Kind,
    Number,
    Optional,
    Proxies,
    Text,
    Texts,
    Url,
)


@frozen
class Key:
    """
    One setting.

    :ivar name: Its name, with hyphens.
    :ivar scope: Whether it holds for a virtual directory's place (``"place"``), its
        rules (``"rules"``), its server application (``"notify"``), or the server
        (``"server"``, ``"limits"``).
    :ivar kind: What values it takes.
    :ivar help: What it does, for ``--help``.
    :ivar unset: What holds where nothing is said, if that is no value of its own.
    """

    name: str
    scope: Literal["place", "rules", "notify", "server", "limits"]
    kind: Kind
    help: str
    unset: str = "0"

    @property
    def attribute(self) -> str:
        """The name of the attribute that it becomes."""
        name = (
            self.name.removeprefix("notify-") if self.scope == "notify" else self.name
        )
        return name.replace("-", "_")

    @property
    def of_a_directory(self) -> bool:
        """Whether each virtual directory may have a value of its own."""
        return self.scope in ("place", "rules", "notify")

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
    Key(
        "allow-downloads",
        "rules",
        Flag(),
        "Answer GET and HEAD with the files that were published.",
    ),
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
        "publish-on",
        "rules",
        Choice(("close", "last-fragment")),
        "When files appear at their destinations: close or last-fragment.",
    ),
    Key(
        "fsync",
        "place",
        Choice(("close", "fragment", "never")),
        "When uploads are made to survive a crash of the machine: close, fragment or "
        "never.",
    ),
    Key(
        "host-id",
        "rules",
        Host(),
        "Host that clients are told to send the rest of a session to, such as "
        "node-1.example.org or 192.0.2.7:8080.",
        unset="none",
    ),
    Key(
        "host-id-fallback-timeout",
        "rules",
        Number("seconds", 1),
        "Seconds without progress there after which clients come back.",
    ),
    Key(
        "notify-url",
        "notify",
        Url(may_be_relative=True),
        "URL of the server application that is told of complete uploads; a relative "
        "one needs --public-url.",
        unset="none",
    ),
    Key(
        "notify-by",
        "notify",
        Choice(("reference", "value")),
        "How the application gets an upload: reference (where it is) or value (its "
        "bytes).",
    ),
    Key(
        "notify-timeout",
        "notify",
        Number("seconds", _LONGER_THAN_A_MOMENT, whole=False),
        "Seconds for sending to the application, its headers, and its reply, each.",
    ),
    Key(
        "notify-send-timeout",
        "notify",
        Number("seconds", _LONGER_THAN_A_MOMENT, whole=False),
        "Seconds for which the application may take nothing of what it is sent.",
        unset="notify-timeout",
    ),
    Key(
        "notify-response-timeout",
        "notify",
        Number("seconds", _LONGER_THAN_A_MOMENT, whole=False),
        "Seconds that the headers of its answer may take.",
        unset="notify-timeout",
    ),
    Key(
        "notify-reply-timeout",
        "notify",
        Number("seconds", _LONGER_THAN_A_MOMENT, whole=False),
        "Seconds for which nothing of a reply in its answer may come.",
        unset="notify-timeout",
    ),
    Key(
        "notify-secret-file",
        "notify",
        Optional(),
        "File with the secret that signs what the application is sent.",
        unset="none",
    ),
    Key(
        "public-url",
        "place",
        Url(is_prefix=True),
        "URL of this server's root as clients see it, such as "
        "https://uploads.example.org.",
        unset="none",
    ),
    Key(
        "trusted-proxies",
        "server",
        Proxies(),
        "Address or network of a proxy whose Forwarded or X-Forwarded-* headers are "
        "believed, or unix; may be given more than once.",
        unset="none",
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
