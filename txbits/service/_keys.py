"""
The settings of the command line and of the TOML file, in one table.

Both are generated from :data:`KEYS`, so that they have the same names, units and
checks. Defaults and bounds come from the classes that the settings become.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from attrs import NOTHING, Attribute, fields_dict, frozen

from txbits._units import shown_duration
from txbits.errors import InvalidSetting
from txbits.notification._url import check_url
from txbits.service._kinds import (
    DURATION,
    SIZE,
    WHOLE_DURATION,
    Flag,
    Host,
    Kind,
    Mount,
    Number,
    Optional,
    Path,
    Proxies,
    Text,
    Texts,
    Url,
    Workers,
    shown,
)
from txbits.service.settings import Access, Configuration, Directory, Notification
from txbits.sessions.settings import ADDRESS_SESSIONS, USER_SESSIONS, Settings
from txbits.web import Limits
from txbits.web._origin import checked_public_url


@frozen
class Key:
    """
    One setting.

    :ivar name: Its name, with hyphens.
    :ivar owner: The class that has an attribute for it.
    :ivar kind: The kind of its values.
    :ivar help: What it does, for ``--help``.
    :ivar unset: The default in words, if it is not a value.
    :ivar schemes: The authentication schemes that it belongs to; empty for all.
    :ivar is_option: Whether it is an option of the command line as well.
    """

    name: str
    owner: type
    kind: Kind
    help: str
    unset: str = "0"
    schemes: tuple[str, ...] = ()
    is_option: bool = True

    @property
    def attribute(self) -> Attribute[Any]:
        """The attribute of its owner."""
        name = self.name
        if self.owner is Notification:
            name = name.removeprefix("notify-")
        return fields_dict(self.owner)[name.replace("-", "_")]

    @property
    def of_a_directory(self) -> bool:
        """Whether each virtual directory can have its own value."""
        return self.owner in (Directory, Settings, Notification, Access)

    @property
    def default(self) -> str:
        """Its default, as one would write it."""
        value = self.attribute.default
        if isinstance(value, bool):
            return str(value).lower()
        if value in (None, NOTHING, ()):
            return self.unset
        if isinstance(value, tuple):
            return ", ".join(value)
        if self.kind in (DURATION, WHOLE_DURATION):
            return shown_duration(value)
        return str(value)

    def checked(self, value: Any, where: str) -> object:
        """
        Check a value as TOML gives it.

        :param where: What the value was given to, such as ``"--mount"``.
        :returns: The value of the attribute.
        :raises InvalidSetting: With a whole line.
        """
        try:
            checked = self.kind.check(value)
            if self.attribute.validator is not None:
                self.attribute.validator(None, self.attribute, checked)
        except InvalidSetting as error:
            raise InvalidSetting(f"{where}: {error}") from None
        except ValueError as error:
            raise InvalidSetting(f"{where}: {_in_words(error, value)}") from None
        return checked


_BOUNDS = {">=": "at least", ">": "more than"}


def _in_words(error: ValueError, value: object) -> str:
    """Reword what the validators of attrs raise, for an operator."""
    if len(error.args) > 2:
        return (
            f"must be one of {', '.join(map(repr, error.args[2]))}, not {shown(value)}"
        )
    bound = re.search("must be (>=?) ([0-9.]+)", str(error))
    if bound is None:
        return str(error)
    return f"must be {_BOUNDS[bound[1]]} {bound[2]}, not {shown(value)}"


#: All settings, in the order of the help.
KEYS = (
    Key(
        "listen", Configuration, Texts('["tcp:8080"]'),
        "Twisted endpoint string to listen on; may be repeated.",
    ),
    Key(
        "backend", Directory, Text(),
        "Where uploads are stored, such as memory: or disk:/srv/uploads; see "
        "--help-backends.",
    ),
    Key("mount", Directory, Mount(), "URL prefix that accepts uploads."),
    Key(
        "enabled", Settings, Flag(), "Accept uploads.",
        # Disabling a directory makes sense only if there are others.
        is_option=False,
    ),
    Key("allow-downloads", Settings, Flag(), "Serve published files to GET and HEAD."),
    Key("allow-overwrites", Settings, Flag(), "Let uploads replace existing files."),
    Key("create-directories", Settings, Flag(), "Create missing parent directories."),
    Key(
        "max-upload-size", Settings, SIZE,
        "Maximum size of a file, such as 20G; 0 for no limit.",
    ),
    Key(
        "max-fragment-size", Settings, SIZE,
        "Maximum size of a fragment, such as 20M; 0 for no limit.",
    ),
    Key(
        "session-timeout", Settings, DURATION,
        "Discard sessions after this time without progress, such as 14d.",
    ),
    Key(
        "session-limit", Settings, Number("a whole number of sessions"),
        "Maximum number of open sessions of one authenticated user, or of one address "
        "of anonymous clients; 0 for no limit.",
        f"{USER_SESSIONS} for a user, {ADDRESS_SESSIONS} for an address",
    ),
    Key(
        "max-sessions", Settings, Number("a whole number of sessions"),
        "Maximum number of open sessions in all; 0 for no limit.",
    ),
    Key(
        "user-quota", Settings, SIZE,
        "Maximum size of what the open sessions of one authenticated user have stored, "
        "such as 100G; 0 for no limit.",
    ),
    Key(
        "directory-quota", Settings, SIZE,
        "Maximum size of what all open sessions have stored, such as 1T; 0 for no "
        "limit.",
    ),
    Key(
        "cleanup-interval", Settings, DURATION,
        "Time between two searches for sessions without progress.",
    ),
    Key(
        "publish-on", Settings, Text(),
        "When files appear at their destinations: close or last-fragment.",
    ),
    Key(
        "fsync", Directory, Text(),
        "When uploads are made to survive a crash of the machine: close, fragment or "
        "never.",
    ),
    Key(
        "host-id", Settings, Host(),
        "Host that clients send the rest of a session to, such as node-1.example.org "
        "or 192.0.2.7:8080.",
        "none",
    ),
    Key(
        "host-id-fallback-timeout", Settings, WHOLE_DURATION,
        "Time without progress there after which clients return.",
    ),
    Key(
        "authenticate", Access, Texts('["negotiate", "basic"]', may_be_empty=True),
        "Authentication scheme, such as link; see --help-authenticators; may be "
        "repeated. Schemes but link require permissions, which only a settings file "
        "has.",
        "none",
    ),
    Key(
        "session-credentials", Access, Text(),
        "Which packets must carry credentials: every-packet or create.",
        is_option=False,
    ),
    Key(
        "adopt-anonymous-sessions", Settings, Flag(),
        "Let whoever may upload to the destination of a session without an owner go "
        "on with it.",
        is_option=False,
    ),
    Key(
        "allow-plain-passwords", Access, Flag(),
        "Accept passwords, tokens and links on listeners without TLS.",
    ),
    Key(
        "password-file", Access, Optional(),
        "File with the users of basic, as htpasswd -B writes it.",
        "none", ("basic",), is_option=False,
    ),
    Key(
        "keytab", Access, Optional(), "File with the Kerberos keys of negotiate.",
        "none", ("negotiate",), is_option=False,
    ),
    Key(
        "realms", Access, Texts('["EXAMPLE.TEST"]', may_be_empty=True),
        "Realms whose users are known without them: those whose users negotiate "
        "accepts, and those that are omitted from names in certificates.",
        "none", ("negotiate", "certificate"), is_option=False,
    ),
    Key(
        "certificate-name", Access, Text(),
        "Which part of a client certificate is the name of the user: cn, dns, email "
        "or upn.",
        schemes=("certificate",), is_option=False,
    ),
    Key(
        "token-file", Access, Optional(), "File with the tokens of bearer.",
        "none", ("bearer",), is_option=False,
    ),
    Key(
        "jwt-keys", Access, Optional(),
        "File or https URL with the keys (JWKS) that sign the JSON Web Tokens of "
        "bearer.",
        "none", ("bearer",), is_option=False,
    ),
    Key(
        "jwt-issuer", Access, Optional(), "Who must have issued JSON Web Tokens.",
        "none", ("bearer",), is_option=False,
    ),
    Key(
        "jwt-audience", Access, Optional(), "Whom JSON Web Tokens must be for.",
        "none", ("bearer",), is_option=False,
    ),
    Key(
        "jwt-name-claim", Access, Text(), "Claim with the name of the user.",
        schemes=("bearer",), is_option=False,
    ),
    Key(
        "jwt-groups-claim", Access, Text(), "Claim with the groups of the user.",
        schemes=("bearer",), is_option=False,
    ),
    Key(
        "user-header", Access, Text(),
        "Header in which a trusted proxy names the user.",
        schemes=("header",), is_option=False,
    ),
    Key(
        "link-key-file", Access, Optional(),
        "File with the keys that sign upload links.", "none", ("link",),
    ),
    Key(
        "link-grace", Access, DURATION,
        "Time for which an expired link serves an open session.",
        "session-timeout", ("link",),
    ),
    Key(
        "revoked-links", Access, Texts('["anna", "17"]', may_be_empty=True),
        "Names or ids of upload links that are no longer valid.",
        "none", ("link",), is_option=False,
    ),
    Key(
        "notify-url", Notification,
        # Whether a relative one can be resolved is checked when all settings are read.
        Url(partial(check_url, public_url="http://localhost")),
        "URL of the server application that is notified of complete uploads; a "
        "relative URL requires --public-url.",
        "none",
    ),
    Key(
        "notify-by", Notification, Text(),
        "How the application gets an upload: reference (its location) or value (its "
        "bytes).",
    ),
    Key(
        "notify-timeout", Notification, DURATION,
        "Time-out for sending to the application, for its headers and for its reply.",
    ),
    Key(
        "notify-send-timeout", Notification, DURATION,
        "Time for which the application may read nothing of the request.",
        "notify-timeout",
    ),
    Key(
        "notify-response-timeout", Notification, DURATION,
        "Time that the headers of its response may take.",
        "notify-timeout",
    ),
    Key(
        "notify-reply-timeout", Notification, DURATION,
        "Time for which no byte of a reply may arrive.",
        "notify-timeout",
    ),
    Key(
        "notify-secret-file", Notification, Optional(),
        "File with the secret that signs requests to the application.",
        "none",
    ),
    Key(
        "public-url", Directory, Url(checked_public_url),
        "URL of the root of this server as clients see it, such as "
        "https://uploads.example.org.",
        "none",
    ),
    Key(
        "log-packets", Directory, Flag(),
        "Log each packet that is answered, also Fragments and Pings.",
    ),
    Key(
        "log-format", Configuration, Text(),
        "Format of the log, text or json; text has fields in systemd's journal.",
        "text",
    ),
    Key(
        "trusted-proxies", Configuration, Proxies('["10.0.0.0/8"]', may_be_empty=True),
        "Address or network of a proxy whose Forwarded or X-Forwarded-* headers are "
        "trusted, or unix for a Unix socket; may be repeated.",
        "none",
    ),
    Key(
        "admin-listen", Configuration, Optional(),
        "Twisted endpoint string to listen on for the operator, such as "
        "unix:/run/txbits/admin:mode=600.",
        "none",
    ),
    Key(
        "admin-users", Configuration, Texts('["alice"]', may_be_empty=True),
        "Users who may connect to admin-listen; required unless it is a Unix socket.",
        "none", is_option=False,
    ),
    Key(
        "admin-directory", Configuration, Path(),
        "Mount of the directory whose authentication schemes know admin-users.",
        "the only one with schemes", is_option=False,
    ),
    Key(
        "health-path", Configuration, Path(),
        "Path that tells load balancers whether the server is ready, such as /health.",
        "none",
    ),
    Key(
        "workers", Configuration, Workers(),
        "Number of worker processes, or auto for one for each usable CPU.",
    ),
    Key(
        "max-connections", Limits, Number("a whole number of connections"),
        "Maximum number of simultaneous connections.",
    ),
    Key(
        "max-connections-per-peer", Limits, Number("a whole number of connections"),
        "Maximum number of simultaneous connections from one address.",
    ),
    Key("header-timeout", Limits, DURATION, "Time for the headers of a request."),
    Key(
        "body-timeout", Limits, DURATION,
        "Time in which at least 1 KiB of a body must arrive.",
    ),
    Key(
        "idle-timeout", Limits, DURATION,
        "Time that a connection may be idle between two requests, at least 120 seconds "
        "because clients and proxies keep connections open.",
    ),
)  # fmt: skip

#: The keys by their names.
BY_NAME = {key.name: key for key in KEYS}
