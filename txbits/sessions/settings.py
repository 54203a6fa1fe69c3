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

#: How many sessions an authenticated user may have open, and how many an address of
#: anonymous clients, if ``session_limit`` is not set.
USER_SESSIONS, ADDRESS_SESSIONS = 50, 1000


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
        anonymous clients, may have open (BITSNumberOfSessionsLimit); 0 for any number,
        and ``None`` for :data:`USER_SESSIONS` and :data:`ADDRESS_SESSIONS`.
    :ivar max_sessions: How many sessions may be open in all; 0 for any number.
    :ivar user_quota: How many bytes the open sessions of one authenticated user may
        have stored; 0 or ``None`` for any.
    :ivar directory_quota: How many bytes all open sessions may have stored; 0 or
        ``None`` for any.
    :ivar adopt_anonymous_sessions: Whether a session that has no owner goes on for
        whoever may upload to its destination.
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
    def sessions_of_user(self) -> int:
        """How many sessions an authenticated user may have open; 0 for any number."""
        return USER_SESSIONS if self.session_limit is None else self.session_limit

    @property
    def sessions_of_address(self) -> int:
        """How many an address of anonymous clients may have; 0 for any number."""
        return ADDRESS_SESSIONS if self.session_limit is None else self.session_limit
