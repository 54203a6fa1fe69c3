"""
The settings of one virtual directory.

The names are those of the command line and of the TOML file, with underscores; the
IIS property that each one corresponds to is named beside it.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import Attribute, field, frozen, validators

from txbits.protocol._fields import LocalProtocolError, check_host_id

#: For how many seconds a successful close is remembered: a client whose Ack was lost
#: may send Close-Session again much later.
CLOSE_MEMORY = 24 * 3600


#: How many sessions one user, or one address of anonymous clients, may have open.
USER_SESSIONS = 50
ADDRESS_SESSIONS = 1000


def _is_host_id(settings: object, attribute: Attribute[str], value: str) -> None:
    try:
        check_host_id(value)
    except LocalProtocolError as error:
        raise ValueError(f"host_id {error}, not {value!r}") from None


def _size() -> Any:
    """A number of bytes; ``None`` or 0 for any."""
    return field(
        default=None,
        converter=lambda size: size or None,
        validator=validators.optional(validators.ge(0)),
    )


@frozen(kw_only=True)
class Settings:
    """
    How a virtual directory treats uploads.

    :ivar enabled: Whether uploads are accepted (BITSUploadEnabled). If not, every
        request is answered with 501, and existing sessions are released.
    :ivar allow_overwrites: Whether a file that exists may be replaced
        (BITSAllowOverwrites).
    :ivar create_directories: Whether missing parent directories are made.
    :ivar max_upload_size: Maximum length of a file, in bytes; 0 or ``None`` for any
        (BITSMaximumUploadSize).
    :ivar max_fragment_size: Maximum length of a fragment, in bytes; 0 or ``None`` for
        any. Clients send shorter ones when told to.
    :ivar session_timeout: Seconds without progress after which a session is discarded
        (BITSSessionTimeout).
    :ivar session_limit: How many sessions one authenticated user, or one address of
        anonymous clients, may have open; 0 for any number; ``None`` for 50 and 1,000
        (BITSNumberOfSessionsLimit). The addresses of an IPv6 /64 count as one.
    :ivar max_sessions: How many sessions the directory may have open; 0 for any number.
    :ivar user_quota: How many bytes the open sessions of one user, or one address of
        anonymous clients, may stage; 0 or ``None`` for any. A file counts with its
        whole length from its first fragment on.
    :ivar directory_quota: How many bytes all open sessions may stage; 0 or ``None`` for
        any.
    :ivar adopt_anonymous_sessions: Whether users go on with sessions that have no
        owner, such as those from before authentication was turned on.
    :ivar publish_on: When the file appears at its destination: with ``"close"`` at
        Close-Session; with ``"last-fragment"`` when it is complete, and Close-Session
        and the time-out then only release the rest.
    :ivar allow_downloads: Whether GET and HEAD are answered with published files.
    :ivar host_id: The host that clients are told to send the rest of a session to
        (BITSHostId), a host name or an address, with a port or without; ``None`` for
        this one.
    :ivar host_id_fallback_timeout: Seconds without progress there after which clients
        come back (BITSHostIdFallbackTimeout).
    :ivar cleanup_interval: Seconds between two rounds of the clean-up
        (BITSCleanupUseDefault, Count, Units).
    """

    enabled: bool = True
    allow_overwrites: bool = False
    create_directories: bool = False
    max_upload_size: int | None = _size()
    max_fragment_size: int | None = _size()
    session_timeout: float = field(default=1_209_600, validator=validators.gt(0))
    session_limit: int | None = field(
        default=None, validator=validators.optional(validators.ge(0))
    )
    max_sessions: int = field(default=100_000, validator=validators.ge(0))
    user_quota: int | None = _size()
    directory_quota: int | None = _size()
    adopt_anonymous_sessions: bool = False
    publish_on: Literal["close", "last-fragment"] = field(
        default="close", validator=validators.in_(("close", "last-fragment"))
    )
    allow_downloads: bool = False
    host_id: str | None = field(
        default=None, validator=validators.optional(_is_host_id)
    )
    host_id_fallback_timeout: int = field(default=86_400, validator=validators.gt(0))
    cleanup_interval: float = field(default=12 * 3600, validator=validators.gt(0))

    @property
    def has_limits(self) -> bool:
        """Whether the number of a user's sessions, or their bytes, are limited."""
        return bool(self.sessions_of(is_user=True) or self.has_quota)

    @property
    def has_quota(self) -> bool:
        """Whether staged bytes are limited."""
        return self.user_quota is not None or self.directory_quota is not None

    def sessions_of(self, *, is_user: bool) -> int:
        """
        How many sessions one caller may have open.

        :param is_user: Whether it is a user, or else an address of anonymous clients.
        :returns: 0 for any number.
        """
        if self.session_limit is not None:
            return self.session_limit
        return USER_SESSIONS if is_user else ADDRESS_SESSIONS
