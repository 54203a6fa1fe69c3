"""
Agents with the trust, certificates and proxy that settings specify.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define
from OpenSSL import crypto
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.web.client import HTTPConnectionPool, ProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from txbits._agents import Direct, agent_with
from txbits.client._auth import Authorizer
from txbits.client._proxy import Tunnel
from txbits.client._trust import ExplainingCreator
from txbits.client._url import InvalidURL, parse_proxy
from txbits.client.settings import ConnectionSettings, InvalidSettings

_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)


@implementer(IPolicyForHTTPS)
@define(eq=False)
class TrustPolicy:
    """Which certificates are trusted, and which one is shown."""

    trust: Any
    certificate: PrivateCertificate | None
    chain: list[Any]

    @classmethod
    def of(cls, settings: ConnectionSettings) -> TrustPolicy:
        """
        Read the certificates.

        :raises InvalidSettings: If they cannot be read.
        """
        trust = platformTrust()
        if settings.authorities is not None:
            trust = trustRootFromCertificates(
                _certificates(settings.authorities, "the authorities' file")
            )
        if settings.certificate is None:
            return cls(trust, None, [])
        own, *chain = _certificates(settings.certificate, "the certificate's file")
        return cls(
            trust,
            PrivateCertificate.fromCertificateAndKeyPair(own, _key(settings)),
            [certificate.original for certificate in chain],
        )

    def creatorForNetloc(
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        """See :class:`twisted.web.iweb.IPolicyForHTTPS`."""
        extra = {"extraCertChain": self.chain} if self.chain else None
        host = hostname.decode("ascii")
        options = optionsForClientTLS(
            host,
            trustRoot=self.trust,
            clientCertificate=self.certificate,
            extraCertificateOptions=extra,
        )
        return ExplainingCreator(options, host)


def _certificates(pem: bytes, name: str) -> list[Certificate]:
    try:
        found = [Certificate.loadPEM(each) for each in _CERTIFICATE.findall(pem)]
    except (crypto.Error, ValueError) as error:
        raise InvalidSettings(f"{name} contains an invalid certificate") from error
    if not found:
        raise InvalidSettings(f"{name} contains no certificate")
    return found


def _key(settings: ConnectionSettings) -> KeyPair:
    pem = settings.key or settings.certificate or b""
    try:
        # With no passphrase at all OpenSSL would ask for one on the terminal.
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem, passphrase=b"")
    except (crypto.Error, ValueError, TypeError) as error:
        raise InvalidSettings(
            "the private key is missing, or has a passphrase"
        ) from error
    return KeyPair(key)


@implementer(IAgentEndpointFactory)
@define(eq=False)
class _Tunnels:
    """Ways to servers of https through a proxy."""

    proxy: IStreamClientEndpoint
    policy: TrustPolicy
    authorizer: Authorizer

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        # Twisted takes the brackets of an IPv6 address away.
        host = b"[%b]" % uri.host if b":" in uri.host else uri.host
        tunnel = Tunnel(self.proxy, b"%b:%d" % (host, uri.port), self.authorizer)
        creator = self.policy.creatorForNetloc(uri.host, uri.port)
        endpoint: IStreamClientEndpoint = wrapClientTLS(creator, tunnel)
        return endpoint


@implementer(IAgent)
@define(eq=False)
class _ThroughProxy:
    """Requests through a proxy: https in tunnels, http as they are."""

    plain: IAgent
    tunnelled: IAgent
    authorizer: Authorizer

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803
    ) -> Deferred[IResponse]:
        if uri.startswith(b"https:"):
            return self.tunnelled.request(method, uri, headers, bodyProducer)
        headers = Headers() if headers is None else headers.copy()
        answer = self.authorizer.answer(method, uri)
        if answer is not None:
            headers.setRawHeaders(b"Proxy-Authorization", [answer])
        return self.plain.request(method, uri, headers, bodyProducer)


def make_agent(
    reactor: Any,
    settings: ConnectionSettings,
    pool: HTTPConnectionPool,
    proxy_authorizer: Authorizer,
) -> IAgent:
    """
    Make an agent.

    :param pool: Keeps its connections.
    :param proxy_authorizer: Answers the proxy, if there is one.
    :raises InvalidSettings: If the settings are invalid.
    """
    policy = TrustPolicy.of(settings)
    if settings.proxy is None:
        return agent_with(reactor, Direct(reactor, policy), pool)
    try:
        host, port = parse_proxy(settings.proxy)
    except InvalidURL as error:
        raise InvalidSettings(str(error)) from error
    proxy = HostnameEndpoint(reactor, host, port)
    tunnels = _Tunnels(proxy, policy, proxy_authorizer)
    return _ThroughProxy(
        ProxyAgent(proxy, reactor, pool),
        agent_with(reactor, tunnels, pool),
        proxy_authorizer,
    )
