"""
Builds what stands before a virtual directory: the authenticators and the permissions.

It reads the files with secrets, so it may block. The schemes are imported when they are
used, because some of them need optional packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from attrs import define, field, frozen

from txbits._ledger import Ledger
from txbits.access._checks import Checks
from txbits.access._threads import Queue, new_thread, one_core_less
from txbits.access.description import (
    authenticator_from_description,
    available_authenticators,
)
from txbits.access.permissions import Permissions
from txbits.clocks import wall_of
from txbits.errors import InvalidSetting
from txbits.interfaces import Credentials, IAuthenticator
from txbits.service._kinds import closest
from txbits.service._listeners import listening
from txbits.service._operators import admin_directory
from txbits.service._permitted import check_permissions
from txbits.service.settings import Access, Configuration, Directory
from txbits.web import Gate

#: Schemes whose credentials serve whoever reads them on the way.
_REUSABLE = ("basic", "bearer", "link")


@define(eq=False)
class Shared:
    """
    What the authenticators of all directories share.

    :param reactor: What they use.
    :param ledger: Counts failed logins in all workers; ``None`` if this process is
        alone.
    """

    reactor: Any
    ledger: Ledger | None = None
    _checks: Checks | None = field(default=None, init=False)

    @property
    def checks(self) -> Checks:
        """
        What remembers and limits checks of passwords. Were there one for each
        directory, each would allow as many guesses.
        """
        if self._checks is None:
            workers = 1 if self.ledger is None else self.ledger.worker.count
            queue = Queue(new_thread(self.reactor), one_core_less(workers))
            self._checks = Checks(self.reactor, queue=queue)
            if self.ledger is not None:
                self._checks.share(self.ledger, "basic")
        return self._checks


def gate_of(directory: Directory, configuration: Configuration, shared: Shared) -> Gate:
    """
    Build what admits requests to a directory.

    :param configuration: All settings of the server; its listeners are those that are
        used.
    :param shared: What the authenticators of all directories share.
    :raises InvalidSetting: With a whole line, if they cannot be used together.
    """
    access = directory.access
    _check_schemes(directory)
    check_permissions(directory)
    _check_around(directory, configuration)
    making = _Making(directory, shared)
    authenticators = [_made(one, making) for one in access.authenticate]
    _check_listeners(directory, configuration, authenticators)
    policy = None
    if access.authenticate or access.permissions:
        policy = Permissions(access.permissions, access.groups)
    return Gate(authenticators, policy, access.session_credentials)


def adopt(gate: Gate, previous: Gate) -> None:
    """
    Let authenticators go on where those of the same class have left off, so that a
    reload forgets neither who has logged in nor who has failed to.
    """
    left = list(previous.authenticators)
    for authenticator in gate.authenticators:
        for other in left:
            if type(other) is type(authenticator):
                left.remove(other)
                if hasattr(authenticator, "adopt"):
                    authenticator.adopt(other)
                break


def known_schemes() -> list[str]:
    """The names of the schemes of txbits and of plugins."""
    return [*_MAKERS, *(one.scheme for one in available_authenticators())]


def _check_schemes(directory: Directory) -> None:
    schemes, known = directory.access.authenticate, known_schemes()
    for scheme in schemes:
        name = scheme.partition(":")[0]
        if name not in known:
            raise InvalidSetting(
                f"{directory.where}authenticate: unknown scheme {name[:80]!a}; the "
                f"schemes are: {', '.join(known)}{closest(name, known)}"
            )
        if schemes.count(scheme) > 1:
            raise InvalidSetting(
                f"{directory.where}authenticate: {scheme!r} is given twice"
            )


def _check_around(directory: Directory, configuration: Configuration) -> None:
    """Refuse schemes that nothing in front of the directory can serve."""
    where, schemes = f"{directory.where}authenticate: ", directory.access.authenticate
    if "header" in schemes and not configuration.trusted_proxies:
        raise InvalidSetting(
            f"{where}header requires trusted-proxies, the only ones who may name users"
        )
    for proxy in configuration.trusted_proxies:
        if "header" in schemes and proxy.endswith("/0"):
            raise InvalidSetting(
                f"{where}header lets everybody be anybody if trusted-proxies has "
                f"{proxy}; name only the proxies"
            )
    if "certificate" in schemes and not any(
        listening(one).asks_certificate for one in configuration.listen
    ):
        raise InvalidSetting(
            f"{where}certificate requires a listener that asks for one, such as "
            "https:443:certificate=FILE:key=FILE:client-ca=FILE"
        )


def _check_listeners(
    directory: Directory,
    configuration: Configuration,
    authenticators: Sequence[IAuthenticator],
) -> None:
    """Refuse credentials that somebody on the network could read and use."""
    if directory.access.allow_plain_passwords:
        return
    for authenticator in authenticators:
        if not _is_reusable(authenticator):
            continue
        for endpoint in _endpoints(directory, configuration):
            if listening(endpoint).is_open:
                raise InvalidSetting(
                    f"{directory.where}authenticate: {authenticator.scheme} on "
                    f"{endpoint}, which has no TLS, lets the network read secrets; "
                    "listen on https:, or on loopback, or, behind a proxy that has "
                    "TLS, set allow-plain-passwords"
                )


def _endpoints(directory: Directory, configuration: Configuration) -> list[str]:
    """The listeners on which a directory's credentials arrive."""
    endpoints = list(configuration.listen)
    if (
        configuration.admin_listen is not None
        and configuration.admin_users
        and admin_directory(configuration).segments == directory.segments
    ):
        endpoints.append(configuration.admin_listen)
    return endpoints


def _is_reusable(authenticator: IAuthenticator) -> bool:
    """Whether its credentials serve whoever reads them on the way."""
    # A third party's may have any name, and ask for passwords all the same.
    asked = authenticator.challenge(Credentials(headers={})) or b""
    word = asked.partition(b" ")[0].lower().decode("latin-1")
    return authenticator.scheme in _REUSABLE or word in _REUSABLE


@frozen
class _Making:
    """
    Makes the authenticators of a directory. What fails, fails with a whole line.

    :ivar directory: The settings of the directory.
    :ivar shared: What the authenticators of all directories share.
    """

    directory: Directory
    shared: Shared

    @property
    def reactor(self) -> Any:
        return self.shared.reactor

    @property
    def access(self) -> Access:
        return self.directory.access

    @contextmanager
    def about(self, key: str) -> Iterator[None]:
        """Begin an error message with the key that it is about."""
        try:
            yield
        except InvalidSetting as error:
            raise InvalidSetting(f"{self.directory.where}{key}: {error}") from None

    def required(self, scheme: str, key: str) -> str:
        """The value of a key that a scheme cannot do without."""
        value: str | None = getattr(self.access, key.replace("-", "_"))
        if value is None:
            dashes = "--" if self.directory.where.endswith("--") else ""
            self.refuse(f"{scheme} requires {dashes}{key}")
        return value

    def refuse(self, reason: str) -> NoReturn:
        """Refuse the settings."""
        raise InvalidSetting(f"{self.directory.where}authenticate: {reason}")


def _made(description: str, making: _Making) -> IAuthenticator:
    """
    Make an authenticator.

    :param description: A scheme of txbits, or the description of a third party's.
    """
    if description in _MAKERS:
        return _MAKERS[description](making)
    with making.about("authenticate"):
        authenticator = authenticator_from_description(description, making.reactor)
    ledger = making.shared.ledger
    if ledger is not None and hasattr(authenticator, "share"):
        kind = f"{description} of {making.directory.mount}"
        authenticator.share(ledger, kind)
    return authenticator


def _basic(making: _Making) -> IAuthenticator:
    from txbits.access.basic import BasicAuthenticator, Passwords

    path = making.required("basic", "password-file")
    with making.about("password-file"):
        return BasicAuthenticator(
            making.reactor, Passwords.read(path), checks=making.shared.checks
        )


def _bearer(making: _Making) -> IAuthenticator:
    from txbits.access.bearer import BearerAuthenticator, Tokens

    access, tokens, verifier = making.access, None, None
    if access.token_file is None and access.jwt_keys is None:
        making.refuse("bearer requires token-file or jwt-keys")
    if access.jwt_keys is None and (access.jwt_issuer or access.jwt_audience):
        making.refuse("jwt-issuer and jwt-audience require jwt-keys")
    if access.token_file is not None:
        with making.about("token-file"):
            tokens = Tokens.read(access.token_file)
    if access.jwt_keys is not None:
        from txbits.access.jwt import JWTVerifier

        issuer = making.required("bearer with jwt-keys", "jwt-issuer")
        audience = making.required("bearer with jwt-keys", "jwt-audience")
        with making.about("jwt-keys"):
            verifier = JWTVerifier(
                making.reactor,
                issuer=issuer,
                audience=audience,
                keys=access.jwt_keys,
                name_claim=access.jwt_name_claim,
                groups_claim=access.jwt_groups_claim,
            )
    return BearerAuthenticator(making.reactor, tokens=tokens, jwt=verifier)


def _certificate(making: _Making) -> IAuthenticator:
    from txbits.access.certificate import CertificateAuthenticator

    access = making.access
    return CertificateAuthenticator(access.certificate_name, realms=access.realms)


def _header(making: _Making) -> IAuthenticator:
    from txbits.access.header import HeaderAuthenticator

    with making.about("user-header"):
        return HeaderAuthenticator(making.access.user_header)


def _link(making: _Making) -> IAuthenticator:
    from txbits.access.links import LinkAuthenticator, LinkKeys

    access, directory = making.access, making.directory
    path = making.required("link", "link-key-file")
    with making.about("link-key-file"):
        keys = LinkKeys.read(path)
    grace = access.link_grace
    return LinkAuthenticator(
        keys,
        mount=directory.mount,
        revoked=access.revoked_links,
        grace=directory.settings.session_timeout if grace is None else grace,
        wall=wall_of(making.reactor),
    )


def _negotiate(making: _Making) -> IAuthenticator:
    from txbits.access.negotiate import NegotiateAuthenticator

    path, realms = making.required("negotiate", "keytab"), making.access.realms
    if not realms:
        making.refuse("negotiate requires realms, those whose users can log in")
    with making.about("keytab"):
        return NegotiateAuthenticator(making.reactor, path, realms)


@frozen
class Scheme:
    """
    An authentication scheme of txbits itself.

    :ivar name: The name in the settings.
    :ivar help: One sentence that says what it checks.
    :ivar make: Makes the authenticator.
    """

    name: str
    help: str
    make: Callable[[_Making], IAuthenticator]


SCHEMES = (
    Scheme("basic", "Names and passwords, from a file of htpasswd -B.", _basic),
    Scheme("bearer", "Tokens from a file, and JSON Web Tokens of an issuer.", _bearer),
    Scheme("certificate", "Client certificates, on an https: listener.", _certificate),
    Scheme("header", "Names that a trusted proxy sends in a header.", _header),
    Scheme("link", "Upload links, which need no account.", _link),
    Scheme("negotiate", "Kerberos, as in Windows domains.", _negotiate),
)

_MAKERS = {one.name: one.make for one in SCHEMES}
