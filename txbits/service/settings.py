"""
The configuration of ``twistd -n txbits``, as values.

:mod:`txbits.service._reading` makes them from options or from a TOML file; defaults and
bounds of settings are here, in :class:`~txbits.sessions.Settings` and in
:class:`~txbits.web.Limits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, optional

from txbits._workers import MOST_WORKERS
from txbits.access._files import read_secret_file
from txbits.access.permissions import Permission
from txbits.errors import InvalidSetting
from txbits.notification._http import TIMEOUT
from txbits.service._kinds import mount_segments
from txbits.sessions.settings import Settings
from txbits.web import Limits
from txbits.web._gate import SessionCredentials

#: Shorter secrets can be found by trying.
_SHORTEST_SECRET = 16

#: A longer file is not one with a secret.
_LONGEST_SECRET = 4096


#: The attributes of :class:`Access` that name files.
FILES_OF_ACCESS = ("password_file", "keytab", "token_file", "jwt_keys", "link_key_file")


@frozen(kw_only=True)
class Notification:
    """
    How a server application is notified of complete uploads.

    :ivar url: Its URL (BITSServerNotificationURL).
    :ivar by: How it gets the upload (BITSServerNotificationType).
    :ivar timeout: Seconds for each step that has no time-out of its own.
    :ivar send_timeout: Seconds for which nothing of the request may be taken.
    :ivar response_timeout: Seconds that the headers of the answer may take.
    :ivar reply_timeout: Seconds for which nothing of a reply may come.
    :ivar secret_file: The file that the secret was read from.
    :ivar secret: Signs requests; ``None`` if they are not to be signed.
    """

    url: str
    by: Literal["reference", "value"] = field(
        default="value", validator=in_(("reference", "value"))
    )
    timeout: float = field(default=TIMEOUT, validator=gt(0))
    send_timeout: float | None = field(default=None, validator=optional(gt(0)))
    response_timeout: float | None = field(default=None, validator=optional(gt(0)))
    reply_timeout: float | None = field(default=None, validator=optional(gt(0)))
    secret_file: str | None = None
    secret: bytes | None = field(default=None, repr=False)

    @property
    def timeouts(self) -> dict[str, Any]:
        """The three time-outs in effect, by their names."""
        return {
            name: self.timeout if seconds is None else seconds
            for name, seconds in (
                ("send_timeout", self.send_timeout),
                ("response_timeout", self.response_timeout),
                ("reply_timeout", self.reply_timeout),
            )
        }


@frozen(kw_only=True)
class Access:
    """
    Who may use a virtual directory.

    :ivar authenticate: The authentication schemes, in the order in which they are
        asked: names of ours, and descriptions of third parties' authenticators.
    :ivar permissions: Who may do what, and where; the first that matches decides.
    :ivar groups: The members of each group, for the permissions.
    :ivar session_credentials: As in :class:`~txbits.web.BITSResource`.
    :ivar allow_plain_passwords: Whether secrets may arrive on listeners without TLS.
    :ivar password_file: The users and password hashes of ``basic``.
    :ivar keytab: The keys of ``negotiate``.
    :ivar realms: The Kerberos realms whose users are known; none for the realm of the
        keytab.
    :ivar certificate_name: Which part of a client certificate is the user's name.
    :ivar token_file: The tokens of ``bearer``.
    :ivar jwt_keys: The file or the URL of the keys (JWKS) that JSON Web Tokens of
        ``bearer`` are signed with.
    :ivar jwt_issuer: Who must have issued them.
    :ivar jwt_audience: Whom they must be for.
    :ivar jwt_name_claim: Which claim is the user's name.
    :ivar jwt_groups_claim: Which claim names the user's groups.
    :ivar user_header: The header in which a trusted proxy names the user.
    :ivar link_key_file: The keys that upload links are signed with.
    :ivar link_grace: Seconds for which an expired link serves an open session;
        ``None`` for the time-out of sessions.
    :ivar revoked_links: Names or ids of links that are not valid any more.
    """

    authenticate: tuple[str, ...] = ()
    permissions: tuple[Permission, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(factory=dict)
    session_credentials: SessionCredentials = field(
        default="every-packet", validator=in_(("every-packet", "create"))
    )
    allow_plain_passwords: bool = False
    password_file: str | None = None
    keytab: str | None = None
    realms: tuple[str, ...] = ()
    certificate_name: Literal["cn", "dns", "email", "upn"] = field(
        default="cn", validator=in_(("cn", "dns", "email", "upn"))
    )
    token_file: str | None = None
    jwt_keys: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_name_claim: str = "sub"
    jwt_groups_claim: str = "groups"
    user_header: str = "X-Remote-User"
    link_key_file: str | None = None
    link_grace: float | None = field(default=None, validator=optional(ge(0)))
    revoked_links: tuple[str, ...] = ()


@frozen(kw_only=True)
class Directory:
    """
    One virtual directory.

    :ivar where: What an error message about it begins with.
    :ivar mount: Its URL prefix, as the operator wrote it.
    :ivar backend: The description of its backend.
    :ivar fsync: As in :class:`~txbits.interfaces.BackendContext`.
    :ivar creates_root: Likewise. A root in a settings file may be a volume that is not
        mounted when the machine starts; a root on a command line was just typed.
    :ivar settings: Its rules.
    :ivar access: Who may use it.
    :ivar notification: The server application, if there is one.
    :ivar public_url: The URL of the server's root as clients see it.
    :ivar log_packets: Whether the log has a line for each packet.
    """

    where: str
    mount: str = "/"
    backend: str = "disk:uploads"
    fsync: Literal["close", "fragment", "never"] = field(
        default="close", validator=in_(("close", "fragment", "never"))
    )
    creates_root: bool = False
    settings: Settings = field(factory=Settings)
    access: Access = field(factory=Access)
    notification: Notification | None = None
    public_url: str | None = None
    log_packets: bool = False

    @property
    def segments(self) -> tuple[bytes, ...]:
        """The prefix as percent-decoded segments of a path, none for ``/``."""
        return mount_segments(self.mount)


@frozen(kw_only=True)
class Configuration:
    """
    All settings of a server.

    :ivar directories: The virtual directories, at least one.
    :ivar listen: Twisted's endpoint strings.
    :ivar listen_from: What an error message about one of them begins with.
    :ivar admin_listen: The endpoint string for the operator; ``None`` for none.
    :ivar admin_from: What an error message about that begins with.
    :ivar admin_users: The users who may connect there; if there are none, everyone who
        can.
    :ivar admin_directory: The mount of the directory whose authentication schemes know
        these users; ``None`` for the only one that has some.
    :ivar health_path: The path that tells load balancers whether the server is ready.
    :ivar workers: How many processes serve; with 1, the only process does.
    :ivar limits: Limits on connections.
    :ivar trusted_proxies: Addresses and networks of proxies whose word on a client is
        trusted.
    :ivar log_format: How ``twistd`` and ``twist`` write the log; ``None`` leaves it to
        them, but for the journal of systemd.
    :ivar path: The file that it was read from, if any.
    :ivar reread: Reads the file again; it blocks.
    """

    directories: tuple[Directory, ...]
    listen: tuple[str, ...] = ("tcp:8080",)
    listen_from: str = "--"
    admin_listen: str | None = None
    admin_from: str = "--"
    admin_users: tuple[str, ...] = ()
    admin_directory: str | None = None
    health_path: str | None = None
    workers: int = field(default=1, validator=[ge(1), le(MOST_WORKERS)])
    limits: Limits = field(factory=Limits)
    trusted_proxies: tuple[str, ...] = ()
    log_format: Literal["text", "json"] | None = field(
        default=None, validator=optional(in_(("text", "json")))
    )
    path: str | None = None
    reread: Callable[[], Configuration] | None = field(
        default=None, eq=False, repr=False
    )


def read_secret(path: str) -> bytes:
    """
    Read a secret from a file, without the line end that editors add.

    :raises InvalidSetting: If it cannot be used; the text goes behind the key.
    """
    length = f"{_SHORTEST_SECRET} to {_LONGEST_SECRET:,} bytes"
    content = read_secret_file(path, length, _LONGEST_SECRET + len(b"\r\n"))
    secret = content.rstrip(b"\r\n")
    if not _SHORTEST_SECRET <= len(secret) <= _LONGEST_SECRET:
        raise InvalidSetting(f"{path} must contain {length}")
    return secret
