"""
Requests to S3: what is tried again, what is not, and what an operator is told.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock, deferLater
from twisted.web.iweb import IAgent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.backends.s3.support import MIB, S3Case
from tests.clocks import Ahead
from tests.fault_proxy import FaultProxy
from txbits._deferreds import begun
from txbits.backends.s3._client import Client
from txbits.backends.s3._responses import Request, S3Error, S3Unreachable
from txbits.errors import BackendError
from txbits.interfaces import ICounting
from txbits.testing.backend import contract

NAME = ("name.txt",)


class LostAnswerTests(S3Case):
    """Requests that were carried out, and are repeated since nobody was told."""

    starts_in_full = True

    async def _uploaded(self, length, *operations, overwrite=False):
        backend = await self.started()
        client = self.client(backend)
        data = self.data(length)
        name = (f"{length}-{'-'.join(operations)}-{overwrite}",)
        session = await self.new(backend, name, overwrite=overwrite)
        for operation in operations:
            client.lose(operation)
        await self.send(session, length, data)
        for operation in operations:
            client.lose(operation)
        await session.publish(overwrite=overwrite, create_directories=False)
        for operation in operations:
            client.lose(operation)
        await session.release(remember=True)
        self.assertTrue(data == await self.file_at(backend, name))
        self.assertTrue(await backend.recalls_close(session.session_id, name, None))
        return backend

    @contract
    async def test_of_a_creation(self):
        backend = await self.started()
        self.client(backend).lose("PutObject")
        session = await self.new(backend)
        found = await (await self.another(backend)).find(session.session_id)
        self.assertEqual(found.destination, NAME)

    @contract
    async def test_of_objects(self):
        for length in (1000, MIB):
            for overwrite in (False, True):
                backend = await self._uploaded(
                    length, "PutObject", "DeleteObject", overwrite=overwrite
                )
                await self.assert_nothing_left(backend)

    @contract
    async def test_of_parts_and_of_their_completion(self):
        for overwrite in (False, True):
            backend = await self._uploaded(
                11 * MIB,
                "UploadPart",
                "CompleteMultipartUpload",
                "PutObject",
                overwrite=overwrite,
            )
            await self.assert_nothing_left(backend)

    @contract
    async def test_of_an_abort(self):
        backend = await self.started()
        session = await self.new(backend)
        await self.send(session, 12 * MIB, self.data(6 * MIB))
        for operation in ("AbortMultipartUpload", "DeleteObject", "PutObject"):
            self.client(backend).lose(operation)
        await session.release()
        await self.assert_nothing_left(backend)

    @contract
    async def test_of_the_completion_of_a_file_that_is_taken_away_at_once(self):
        backend = await self.started()
        client = self.client(backend)
        data = self.data(6 * MIB)
        session = await self.new(backend)
        await self.send(session, len(data), data)
        client.lose("CompleteMultipartUpload")
        held, goes_on = client.hold("CompleteMultipartUpload")
        publishing = session.publish(overwrite=True, create_directories=False)
        await held
        goes_on.callback(None)
        await publishing
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key="in/name.txt")
        again = await self.reopened(backend)
        found = await again.find(session.session_id)
        # It is not asked for a second time: somebody has it.
        self.assertTrue(found.published)


class Unheard(Client):
    """Asks nobody: no answer comes, after five seconds."""

    async def _attempt(self, request, headers, payload, seconds, is_repeated):
        self.counts[request.key] += 1
        await deferLater(self._reactor, 5.0)
        raise S3Unreachable("nobody answers")


@implementer(IAgent)
class Lookup:
    """An agent that looks the host's name up, as endpoints do, and finds nothing."""

    def request(self, method, uri, headers=None, bodyProducer=None):  # noqa: N803
        return Deferred(
            lambda looking: looking.errback(
                DNSLookupError("Couldn't find the hostname")
            )
        )


class CancelTests(S3Case):
    """Requests that nobody waits for any more."""

    starts_in_full = True

    @contract
    async def test_while_the_name_of_the_host_is_looked_up(self):
        backend = await self.started()
        clock = Clock()
        client = Client(
            backend.settings, self.client(backend).access, Lookup(), clock, None
        )
        asking = begun(
            client.ask(Request(operation="HeadObject", method="HEAD", key="key"))
        )
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])


class LineTests(S3Case):
    """Requests that stand in line."""

    starts_in_full = True

    @contract
    async def test_the_time_they_wait_is_part_of_the_time_they_have(self):
        backend = await self._start(self.node(connections=1, timeout=30))
        clock = Clock()
        client = Unheard(
            backend.settings,
            self.client(backend).access,
            None,
            clock,
            None,
            random=lambda least, most: 0.0,
        )
        outcomes = [
            begun(
                client.ask(Request(operation="HeadObject", method="HEAD", key=key))
            ).addErrback(lambda failure: failure.trap(S3Unreachable))
            for key in ("first", "second")
        ]
        clock.pump([5.0] * 7)
        for outcome in outcomes:
            self.assertIs(self.successResultOf(outcome), S3Unreachable)
        # The second was asked once, since that may be all it takes.
        self.assertEqual(client.counts, {"first": 6, "second": 1})


class StartTests(S3Case):
    """What can be known at the start is told then, in one line."""

    starts_in_full = True

    async def _fails(self, backend, pattern) -> str:
        with self.assertRaises(BackendError) as caught:
            await backend.start()
        line = str(caught.exception)
        self.assertRegex(line, pattern)
        self.assertNotIn("\n", line)
        self.assertIsNone(backend._threads)
        self.assertIsNone(backend._pool)
        return line

    def _bucket(self, name):
        node = self.node()
        object.__setattr__(node.settings, "bucket", name)
        return node

    @contract
    async def test_no_such_bucket(self):
        await self._fails(self._bucket("not-there"), "404 NoSuchBucket")

    @contract
    async def test_a_wrong_secret(self):
        os.environ["AWS_SECRET_ACCESS_KEY"] = "wrong"  # restored by setUp's clean-up
        await self._fails(self.node(), "403 SignatureDoesNotMatch")

    @contract
    async def test_an_unknown_key(self):
        os.environ["AWS_ACCESS_KEY_ID"] = "nobody"
        await self._fails(self.node(), "403 InvalidAccessKeyId")

    @contract
    async def test_no_credentials(self):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            self.addCleanup(os.environ.__setitem__, name, os.environ.pop(name))
        await self._fails(self.node(), "no credentials for S3 were found")

    @contract
    async def test_nobody_listens(self):
        backend = self.node(endpoint="http://127.0.0.1:1", timeout=1)
        await self._fails(backend, "http://127.0.0.1:1/.* cannot be reached")

    @contract
    async def test_an_unknown_profile(self):
        await self._fails(self.node(profile="nobody"), "nobody")

    @contract
    async def test_a_file_without_certificates(self):
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("nothing")
        await self._fails(self.node(ca=path), "has no certificates")

    @contract
    async def test_it_leaves_nothing_in_the_bucket(self):
        await self.started()
        self.assertEqual(self.bucket.everything(), [])


class ClientTests(S3Case):
    """Single requests."""

    starts_in_full = True

    @contract
    async def test_a_wrong_clock_is_corrected(self):
        for seconds in (-3600, 3600):
            backend = self.node()
            skewed: Any = Ahead(seconds)
            backend._reactor = skewed
            await self._start(backend)
            access = backend.staging.bucket.client.access
            self.assertApproximates(access.skew, -seconds, 60)
            session = await self.new(backend, (str(seconds),))
            await self.send(session, 5, b"abc")
            (summary,) = [
                one
                for one in await backend.sessions()
                if one.session_id == session.session_id
            ]
            self.assertApproximates(summary.last_progress, skewed.seconds(), 60)

    @contract
    async def test_md5_in_place_of_crc32(self):
        backend = await self._start(self.node(checksum="md5"))
        data = self.data(6 * MIB)
        session = await self.complete(backend, NAME, data)
        await self.close(backend, session)
        self.assertTrue(data == await self.file_at(backend, NAME))

    @contract
    async def test_sse_and_storage_class_are_passed_on(self):
        backend = await self._start(
            self.node(sse="AES256", storage_class="STANDARD_IA")
        )
        for length in (100, 6 * MIB):
            name = (str(length),)
            await self.close(
                backend, await self.complete(backend, name, self.data(length))
            )
            head = self.bucket.client.head_object(
                Bucket=self.bucket.name, Key=f"in/{length}"
            )
            self.assertEqual(head.get("StorageClass"), "STANDARD_IA")
            self.assertEqual(head.get("ServerSideEncryption"), "AES256")

    @contract
    async def test_what_is_refused_is_not_tried_again(self):
        backend = await self.started()
        client = self.client(backend)
        before = client.counts.total()
        with self.assertRaises(S3Error):
            await backend.staging.bucket.begin_upload("x" * 2000, {})
        self.assertEqual(client.counts.total(), before + 1)

    @contract
    async def test_attempts_are_counted_by_operation_and_status(self):
        node = self.node(timeout=1)
        self.assertEqual(node.request_counts(), {})
        backend = await self._start(node)
        verifyObject(ICounting, backend)
        client = self.client(backend)
        before = backend.request_counts()
        client.lose("GetObject", times=1)
        await backend.staging.bucket.get("in/nothing", 10)
        after = backend.request_counts()
        more = {
            key: count.requests - (before[key].requests if key in before else 0)
            for key, count in after.items()
        }
        self.assertEqual(
            {key: count for key, count in more.items() if count},
            {("GetObject", "none"): 1, ("GetObject", "404"): 1},
        )
        self.assertGreater(after["GetObject", "404"].seconds, 0)

    @contract
    async def test_time_ends(self):
        backend = await self._start(self.node(timeout=1))
        client = self.client(backend)
        client.lose("GetObject", times=1000)
        with self.assertRaises(S3Unreachable):
            await backend.staging.bucket.get("in/nothing", 10)
        self.assertGreater(client.counts["GetObject"], 1)

    @contract
    async def test_an_answer_that_is_too_long_is_no_answer(self):
        backend = await self._start(self.node(timeout=1))
        await self.put(backend, ("long",), bytes(100_000))
        with self.assertRaises(S3Unreachable):
            await backend.staging.bucket.get("in/long", 1000)
        found = await backend.staging.bucket.get("in/long", 100_000)
        self.assertEqual(found and len(found.body), 100_000)

    @contract
    async def test_many_requests_use_few_connections(self):
        proxy = FaultProxy.start(self, self.bucket.server.port)
        backend = await self._start(self.node(connections=3, endpoint=proxy.endpoint))
        made = [begun(self.new(backend, (str(n),))) for n in range(40)]
        for one in made:
            await one
        self.assertGreaterEqual(len(proxy.requests), 80)
        self.assertEqual((proxy.most, proxy.connections), (3, 3))
