"""
Where the bucket is, and as whom it is asked: botocore's rules, TLS, credentials.

The TLS server is a relay to the S3 server, with a certificate made for the test.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock, deferLater
from twisted.protocols.portforward import ProxyFactory, ProxyServer
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.s3.support import S3Case
from tests.backends.s3.test_downloads import Slow
from tests.seaweedfs import ACCESS_KEY, SECRET_KEY
from txbits._deferreds import begun, deferred
from txbits.backends.s3 import S3Settings
from txbits.backends.s3._access import UNSIGNED, Access, resolved
from txbits.backends.s3._client import ATTEMPT_TIMEOUT
from txbits.backends.s3._downloads import Stream
from txbits.errors import BackendError
from txbits.testing.backend import contract


def certificate(path):
    """Make a certificate for 127.0.0.1, signed by nobody but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "txbits test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    with open(f"{path}.crt", "wb") as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
    with open(f"{path}.key", "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return f"{path}.crt", f"{path}.key"


class TLSTests(S3Case):
    """An S3 server with a certificate of one's own."""

    starts_in_full = True

    def setUp(self):
        self.relays = []
        return super().setUp()

    async def _relay(self):
        relays = self.relays

        class Relay(ProxyServer):
            """One that notes itself."""

            def connectionMade(self):
                self.gone = Deferred()
                relays.append(self)
                ProxyServer.connectionMade(self)

            def connectionLost(self, reason):
                ProxyServer.connectionLost(self, reason)
                self.gone.callback(None)

        crt, key = certificate(self.mktemp())
        endpoint = serverFromString(
            reactor, f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={crt}"
        )
        factory = ProxyFactory("127.0.0.1", self.bucket.server.port)
        factory.protocol = Relay
        port = await endpoint.listen(factory)
        self.addCleanup(self._end_relays, port)
        return f"https://127.0.0.1:{port.getHost().port}", crt

    @deferred
    async def _end_relays(self, port):
        await maybeDeferred(port.stopListening)
        for relay in self.relays:
            # One that is paused hears of no end.
            for end in () if relay.gone.called else (relay, relay.peer):
                if end is not None:
                    end.transport.abortConnection()
            await relay.gone
        await self.turn()
        await self.turn()

    @contract
    async def test_one_that_is_named_is_trusted(self):
        url, crt = await self._relay()
        backend = await self._start(self.node(endpoint=url, ca=crt))
        data = self.data(6 << 20)
        session = await self.complete(backend, ("name.txt",), data)
        await self.close(backend, session)
        self.assertTrue(data == await self.file_at(backend, ("name.txt",)))
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_download_survives_a_connection_that_says_nothing_any_more(self):
        url, crt = await self._relay()
        backend = await self._start(self.node(endpoint=url, ca=crt))
        data = self.data(8 << 20)
        await self.put(backend, ("name.txt",), data)
        found = await backend.staging.bucket.head("in/name.txt")
        relays = self.relays
        clock = Clock()
        consumer = Slow(1 << 20)
        stream = Stream(consumer, self.client(backend), clock, found)
        reading = begun(stream.run(0, len(data)))
        await consumer.full
        (relay,) = relays
        # Not even the end of TLS is answered.
        relay.transport.pauseProducing()
        relay.peer.transport.pauseProducing()
        relay.peer.dataReceived = lambda _: None
        consumer.producer.resumeProducing()
        while len(relays) == 1:
            clock.advance(ATTEMPT_TIMEOUT)
            await self.turn()
        reading.addTimeout(30, reactor)
        await reading
        self.assertTrue(data == consumer.received)

    @contract
    async def test_others_are_not_and_it_is_said_at_once(self):
        url, _ = await self._relay()
        backend = self.node(endpoint=url)
        with self.assertRaises(BackendError) as caught:
            await backend.start()
        self.assertRegex(str(caught.exception), r"certificate of .* is not trusted")
        self.assertNotIn("\n", str(caught.exception))


class AddressTests(S3Case):
    """The bucket's URL, without asking anybody."""

    starts_in_full = True

    def base(self, **settings):
        return resolved(
            S3Settings(bucket="logs", **settings),
            reactor,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
        )

    def test_amazon_has_the_bucket_in_the_name(self):
        access = self.base(region="eu-central-1")
        self.assertEqual(access.base, "https://logs.s3.eu-central-1.amazonaws.com")
        self.assertEqual((access.region, access.service), ("eu-central-1", "s3"))
        self.assertTrue(access.is_safe)

    def test_it_may_be_in_the_path(self):
        access = self.base(region="eu-central-1", addressing="path")
        self.assertEqual(access.base, "https://s3.eu-central-1.amazonaws.com/logs")

    def test_an_endpoint_of_ones_own_has_it_where_it_is_wanted(self):
        for addressing, base in (
            ("path", "http://s3.example.org:9000/logs"),
            ("virtual", "http://logs.s3.example.org:9000"),
        ):
            access = self.base(
                endpoint="http://s3.example.org:9000",
                region="x-1",
                addressing=addressing,
            )
            self.assertEqual(access.base, base)
            self.assertEqual(access.region, "x-1")
            self.assertFalse(access.is_safe)

    def test_the_environment_names_region_and_endpoint(self):
        for name, value in (
            ("AWS_REGION", "ap-south-1"),
            ("AWS_ENDPOINT_URL_S3", "https://s3.example.org"),
        ):
            os.environ[name] = value
            self.addCleanup(os.environ.pop, name)
        access = self.base(addressing="path")
        self.assertEqual(access.base, "https://s3.example.org/logs")
        self.assertEqual(access.region, "ap-south-1")
        os.environ["AWS_DEFAULT_REGION"] = "eu-west-1"
        self.addCleanup(os.environ.pop, "AWS_DEFAULT_REGION")
        self.assertEqual(self.base().region, "eu-west-1")

    def test_an_access_point_is_a_bucket(self):
        arn = "arn:aws:s3:eu-central-1:123456789012:accesspoint/uploads"
        access = resolved(
            S3Settings(bucket=arn, region="eu-central-1"),
            reactor,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
        )
        self.assertEqual(
            access.base,
            "https://uploads-123456789012.s3-accesspoint.eu-central-1.amazonaws.com",
        )


class SigningTests(SynchronousTestCase):
    """
    Requests and URLs are signed as botocore signs them.

    That is checked against ``add_auth()``, which botocore documents. It dates what it
    signs by the clock of the machine, and ours is set to that date.
    """

    KEYS = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    URL = "https://logs.example.org/in/%7B1%7D/a%20name~%2B?list-type=2&prefix=in%2F"

    def access(self, date, token):
        """One whose clock shows a date as signatures have it."""
        clock = Clock()
        clock.advance(
            datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        )
        access = Access(
            "https://logs.example.org",
            "eu-central-1",
            "s3",
            None,
            Credentials(*self.KEYS, token),
            clock,
            lambda function, *args: deferLater(clock, 0, function, *args),
        )
        ready = begun(access.ready())
        clock.advance(0)
        self.successResultOf(ready)
        return access

    def test_requests(self):
        for token in (None, "a/session+token="):
            for method, body in (("GET", b""), ("PUT", b"some bytes")):
                headers = {
                    "content-type": "text/plain",
                    "x-amz-meta-txbits-session": "{1}",
                    "if-none-match": "*",
                }
                request = AWSRequest(method, self.URL, dict(headers), body)
                S3SigV4Auth(
                    Credentials(*self.KEYS, token), "s3", "eu-central-1"
                ).add_auth(request)
                access = self.access(request.headers["X-Amz-Date"], token)
                self.assertEqual(
                    access.signed(method, self.URL, headers, sha256(body).hexdigest()),
                    dict(request.headers.items()),
                )

    def test_requests_whose_body_is_not_signed(self):
        request = AWSRequest("PUT", self.URL, {"content-md5": "x"}, b"some bytes")
        request.context["has_streaming_input"] = True
        S3SigV4Auth(Credentials(*self.KEYS), "s3", "eu-central-1").add_auth(request)
        self.assertEqual(request.headers["X-Amz-Content-SHA256"], UNSIGNED)
        access = self.access(request.headers["X-Amz-Date"], None)
        self.assertEqual(
            access.signed("PUT", self.URL, {"content-md5": "x"}, UNSIGNED),
            dict(request.headers.items()),
        )

    def test_urls(self):
        url = self.URL.partition("?")[0]
        for token in (None, "a/session+token="):
            for method in ("GET", "HEAD"):
                request = AWSRequest(method, url)
                S3SigV4QueryAuth(
                    Credentials(*self.KEYS, token), "s3", "eu-central-1", 600
                ).add_auth(request)
                query = dict(parse_qsl(urlsplit(request.url).query))
                access = self.access(query["X-Amz-Date"], token)
                self.assertEqual(access.presigned(method, url, 600), request.url)


class CredentialsTests(S3Case):
    """Credentials that expire, from a program that AWS's configuration names."""

    starts_in_full = True

    def _offer(self, minutes, secret=SECRET_KEY):
        expires = datetime.now(UTC) + timedelta(minutes=minutes)
        with open(self.path, "w") as file:
            json.dump(
                {
                    "Version": 1,
                    "AccessKeyId": ACCESS_KEY,
                    "SecretAccessKey": secret,
                    "SessionToken": None,
                    "Expiration": expires.isoformat(),
                },
                file,
            )

    def setUp(self):
        super().setUp()
        self.path = os.path.abspath(self.mktemp())
        config = os.path.abspath(self.mktemp())
        with open(config, "w") as file:
            file.write(f"[profile rotating]\ncredential_process = cat {self.path}\n")
        os.environ["AWS_CONFIG_FILE"] = config  # restored by setUp's clean-up
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del os.environ[name]
            self.addCleanup(os.environ.pop, name, None)

    @contract
    async def test_they_are_renewed_before_they_expire(self):
        self._offer(1)
        backend = await self._start(self.node(profile="rotating"))
        access = backend.staging.bucket.client.access
        first = access._frozen
        self._offer(60)
        access._refreshed_at = float("-inf")  # a minute has passed
        await self.new(backend)
        self.assertIsNot(access._frozen, first)

    @contract
    async def test_nobody_waits_for_those_that_are_good_for_a_while(self):
        self._offer(14)
        backend = await self._start(self.node(profile="rotating"))
        access = backend.staging.bucket.client.access
        first = access._frozen
        self._offer(60)
        access._refreshed_at = float("-inf")
        await access.ready()
        self.assertIs(access._frozen, first)
        await access._refreshing.over()
        self.assertIsNot(access._frozen, first)

    @contract
    async def test_a_look_that_is_refused_without_a_word_may_be_because_of_them(self):
        self._offer(1)
        backend = await self._start(self.node(profile="rotating"))
        bucket = backend.staging.bucket
        first = bucket.client.access._frozen
        self._offer(60)
        bucket.client.answer({"HeadObject": b""}, 400)
        self.assertIsNone(await bucket.head("in/nothing"))
        self.assertIsNot(bucket.client.access._frozen, first)

    @contract
    async def test_a_program_that_fails_is_told_at_the_start(self):
        with self.assertRaises(BackendError) as caught:
            await self.node(profile="rotating").start()
        self.assertNotIn("\n", str(caught.exception))
