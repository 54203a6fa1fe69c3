"""
Who sends a request, and what they may do: authentication and permission.

An :class:`IAuthenticator` turns the credentials of a request into an
:class:`Identity`. An :class:`IAccessPolicy` decides what that identity may do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from txbits.errors import AccessDenied, CredentialsRejected

#: Maximum length of a user's name, in bytes of UTF-8: it can be a path segment.
_LONGEST_NAME = 255

#: Names that mean something else in permissions.
_RESERVED = frozenset({"*", "anonymous"})


def checked_user_name(name: str) -> str:
    """
    Check that a name can be a user's: it must be safe as a segment of a path.

    :param name: The name, without a realm.
    :returns: The same.
    :raises CredentialsRejected: If it has a slash, a backslash, a colon, a control
        character or ``..``, begins with ``@``, is empty, reserved, or too long, or is
        not valid Unicode.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = 0
    if (
        not 0 < length <= _LONGEST_NAME
        or name in _RESERVED
        or name.startswith("@")
        or ".." in name
        or name == "."
        or not name.isprintable()
        or any(character in name for character in "/\\:")
    ):
        raise CredentialsRejected(f"{name[:80]!a} cannot be the name of a user")
    return name


@frozen
class Grant:
    """
    What a caller may do with one upload, within the settings of the directory.

    :ivar overwrite: Whether it may replace an existing file.
    :ivar max_size: Maximum length of the file, in bytes; ``None`` for any.
    :ivar claim: If set, only one upload of all that have this name is ever published.
    :ivar claim_until: When the claim can be forgotten, in seconds since the epoch.
    """

    overwrite: bool = True
    max_size: int | None = None
    claim: str | None = None
    claim_until: float = 0.0


#: Everything that the settings of the directory allow.
FULL_GRANT = Grant()


@frozen
class Scope:
    """
    A permission that comes with an identity, such as that of an upload link. It permits
    uploads only, and no access policy is asked.

    :ivar path: A path below the virtual directory, as percent-decoded segments.
    :ivar is_tree: Whether it contains all destinations below *path*; otherwise *path*
        is the only destination.
    :ivar grant: What it permits.
    :ivar has_expired: Whether it only permits going on with sessions that are open.
    """

    path: tuple[str, ...]
    is_tree: bool
    grant: Grant
    has_expired: bool = False

    def check(self, destination: tuple[str, ...], packet_type: str) -> Grant:
        """
        Permit or refuse a packet, as :meth:`IAccessPolicy.check` does.

        :raises CredentialsRejected: If it has expired, and this begins an upload.
        :raises AccessDenied: If this is no upload, or *destination* is outside.
        """
        if self.has_expired and packet_type == "Create-Session":
            raise CredentialsRejected("the link has expired")
        if packet_type in ("GET", "HEAD"):
            raise AccessDenied("an upload link does not permit downloads")
        is_itself = destination == self.path
        is_inside = contains(self.path, destination) and not is_itself
        if not (is_inside if self.is_tree else is_itself):
            raise AccessDenied("the destination is outside the scope of the link")
        return self.grant


def contains(path: tuple[str, ...], destination: tuple[str, ...]) -> bool:
    """
    Tell whether a destination is at or below a path.

    Names that could mean another place on some backend, such as ``..``, are in no path
    but the root.

    :param path: Segments, none for the root.
    :param destination: As packets name it: not checked by a backend.
    """
    rest = destination[len(path) :]
    if destination[: len(path)] != path:
        return False
    return not path or all(
        one not in (".", "..")
        and "/" not in one
        and "\\" not in one
        and "\0" not in one
        for one in rest
    )


@frozen
class Identity:
    """
    Who sent a request.

    The same name is the same person, whatever the scheme: sessions belong to names.

    :ivar name: The name of the user, see :func:`checked_user_name`; that of a link
        begins with ``link/``, so that it is no user's.
    :ivar scheme: How the name was established, such as ``"basic"``; empty if the
        embedding application has done that.
    :ivar groups: Groups that the credentials name; those of the settings are added by
        the access policy.
    :ivar scope: A permission that comes with the credentials; ``None`` if the access
        policy decides.
    """

    name: str
    scheme: str = ""
    groups: frozenset[str] = frozenset()
    scope: Scope | None = None


@define(eq=False, repr=False)
class Credentials:
    """
    What a request and its connection tell about the sender. None of it is verified but
    what the transport guarantees.

    :ivar headers: The headers of the request by lower-case name.
    :ivar path: The segments of the path below the virtual directory.
    :ivar query: The query of the URL, without the question mark.
    :ivar method: The method, such as ``BITS_POST``.
    :ivar address: The address of the client, as trusted proxies tell it; ``"-"`` for a
        Unix socket.
    :ivar is_secure: Whether the connection to this server uses TLS.
    :ivar is_proxied: Whether the peer is a trusted proxy, or the headers say that the
        request passed one. Then several clients may share the connection.
    :ivar from_trusted_proxy: Whether the peer is a trusted proxy.
    :ivar connection: What authenticators remember about the connection, each under a
        key of its own, such as ``self``. Never use it for an identity if
        *is_proxied*.
    :ivar certificate: Returns the certificate of the peer, an
        ``OpenSSL.crypto.X509``, or ``None``.
    """

    headers: Mapping[bytes, Sequence[bytes]]
    path: tuple[str, ...] = ()
    query: bytes = b""
    method: bytes = b""
    address: str = "-"
    is_secure: bool = False
    is_proxied: bool = False
    from_trusted_proxy: bool = False
    connection: MutableMapping[Any, Any] = field(factory=dict)
    certificate: Callable[[], Any] = field(default=lambda: None)
    response_headers: list[tuple[bytes, bytes]] = field(factory=list)

    def respond_with(self, name: bytes, value: bytes) -> None:
        """Add a header to the response, whatever that will be."""
        self.response_headers.append((name, value))

    @property
    def authorization(self) -> tuple[str, bytes] | None:
        """
        The scheme of the Authorization header, in lower case, and what follows it.

        :returns: ``None`` if there is no such header, or more than one.
        """
        values = self.headers.get(b"authorization", ())
        if len(values) != 1:
            return None
        scheme, _, rest = values[0].strip(b" \t").partition(b" ")
        return scheme.decode("latin-1").lower(), rest.strip(b" ")


class IAuthenticator(Interface):
    """
    Establishes who sent a request, by one authentication scheme.

    A virtual directory asks its authenticators one after the other, before it reads a
    body, until one of them knows the sender.
    """

    scheme: str = Attribute("The name of the scheme, such as 'basic'.")
    strength: int = Attribute(
        "Challenges are sent in descending order of this number, because clients "
        "choose the first one that they support: 300 for Negotiate, 200 for Bearer, "
        "100 for Basic."
    )

    def challenge(credentials: Credentials) -> bytes | None:
        """
        The value of WWW-Authenticate for a request without valid credentials.

        :returns: ``None`` if clients cannot be asked, such as for a certificate.
        """

    def authenticate(credentials: Credentials) -> Deferred[Identity | None]:
        """
        Establish who sent a request.

        :returns: A Deferred that fires with the identity, or with ``None`` if the
            request has no credentials of this scheme. It fails with
            :class:`~txbits.errors.CredentialsRejected` if they are wrong, with
            :class:`~txbits.errors.CredentialsIncomplete` if the client has to continue,
            or with :class:`~txbits.errors.CredentialsUncheckable` if it cannot be told
            now: a Windows job ends when its credentials are rejected, and is never
            retried.
        """


class IRemembering(Interface):
    """
    Optional: an authenticator that knows the sender of later requests on a connection,
    which have no credentials. :attr:`IAuthenticator.scheme` is its word in the
    Authorization header.
    """

    def forget(credentials: Credentials) -> None:
        """
        Forget who has logged in on a connection: a request has an Authorization header
        of another scheme, whoever takes that, or an upload link.
        """


class IRelayable(IRemembering):
    """
    Optional: an authenticator whose logins are valid at all workers of a service.

    A worker that passes a request on to another one tells it who has logged in on the
    connection of the client, so that the client need not log in again.
    """

    def login_of(connection: MutableMapping[Any, Any]) -> object | None:
        """
        Return who has logged in on a connection.

        :param connection: See :attr:`Credentials.connection`.
        :returns: What :meth:`take_login` needs, as values that JSON can represent;
            ``None`` if nobody has.
        """

    def take_login(connection: MutableMapping[Any, Any], login: Any) -> None:
        """
        Take over who has logged in on a connection to another worker.

        :param connection: See :attr:`Credentials.connection`.
        :param login: What :meth:`login_of` has returned there.
        """


class IKnowing(Interface):
    """
    Optional: an authenticator that can tell who may log in.

    Packets without credentials may act for the owner of their session, see
    :class:`txbits.web.BITSResource`. If all authenticators provide this, they do so
    only as long as one of them knows the owner.
    """

    def knows(name: str) -> bool:
        """Whether the user can log in, or that cannot be told."""


class IAuthenticatorParser(IPlugin):
    """
    A Twisted plugin that makes an authenticator from its description in the settings.

    A description is written like Twisted's endpoint strings,
    ``scheme:argument:name=value``. Put an instance into a module of the
    ``twisted.plugins`` package, and ``authenticate = ["scheme:..."]`` works.
    """

    scheme: str = Attribute("The first word of its descriptions, such as 'ldap'.")
    format: str = Attribute("The form of a description, such as 'ldap:HOST'.")
    help: str = Attribute("One or two sentences that say what it checks.")

    def parse_authenticator(reactor: Any, *args: str, **kwargs: str) -> IAuthenticator:
        """
        Make the authenticator. This is called in a thread, and may read files.

        :param reactor: The reactor that it is to use.
        :param args: The positional parts of the description, unescaped.
        :param kwargs: The named parts, unescaped.
        :raises InvalidSetting: If the description is wrong; the text says how.
        """


class IAccessPolicy(Interface):
    """
    Decides who may upload where, and who may download.

    Authentication comes before: see :class:`IAuthenticator` and
    :meth:`txbits.web.BITSResource.for_user`.
    """

    def check(
        identity: Identity | None, destination: tuple[str, ...], packet_type: str
    ) -> Deferred[Grant | None]:
        """
        Permit or refuse a packet, before its body arrives, or a download.

        Sessions and replies of server applications belong to the user who created the
        session. This is called for them as well: a permission may have been revoked
        since.

        :param identity: Who sent it; ``None`` if anonymous.
        :param destination: The destination, not yet checked by the backend.
        :param packet_type: Such as ``"Create-Session"``, as the protocol spells it;
            ``"GET"`` or ``"HEAD"`` for a download; ``"Reply"`` for reading a reply to
            an upload to *destination*.
        :returns: A Deferred that fires with a :class:`Grant` if it is permitted, or
            with ``None`` for everything that the settings of the directory allow. It
            fails with :class:`~txbits.errors.AccessDenied` if it is not permitted, and
            with :class:`~txbits.errors.BackendError` if that cannot be told now: the
            client tries again later, and the log tells the operator the text.
        """
