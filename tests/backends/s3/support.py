"""
What the tests of the S3 backend have in common: backends on a bucket of a real S3
server.

:class:`S3Case` hands out backends that are ended with the test. A backend's client can
be told to count, to die, or to hold a call open; see :class:`MortalClient`.
"""

from __future__ import annotations

import contextlib
import os
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.clocks import Ahead
from tests.seaweedfs import ENVIRONMENT, REGION, Bucket
from txbits.backends.s3 import S3Backend, S3Settings
from txbits.backends.s3._access import Access, resolved
from txbits.backends.s3._budget import Budget
from txbits.backends.s3._client import Client
from txbits.backends.s3._probe import probe
from txbits.backends.s3._records import LEAST_OPEN
from txbits.backends.s3._responses import S3Error, S3Unreachable, http_date
from txbits.backends.s3._staging import CLAIMS
from txbits.errors import NoSuchSession
from txbits.interfaces import (
    IAbilities,
    IClaimable,
    IDownloadable,
    IPaged,
    IRefreshable,
    ISorted,
)
from txbits.testing._contract import ContractBase

MIB = 1 << 20

#: A list of parts that has none.
NO_PARTS = b"<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"

if TYPE_CHECKING:
    _Case = TestCase
else:
    _Case = object


class Killed(BaseException):
    """The process is dead; not an Exception, so that nothing handles it."""


class MortalClient(Client):
    """
    Asks S3, with an end. It stands at the line of the calls.

    :ivar asked: The names of the operations that were asked for, in order.
    """

    def __attrs_post_init__(self):
        super().__attrs_post_init__()
        self.asked = []
        self._calls_left = None
        self._dead = False
        self._holds = {}
        self._answer_holds = {}
        self._losing = {}
        self._answers = {}
        self._dated_back = {}

    def date_back(self, etag, seconds):
        """Be told that an object was stored so much earlier."""
        self._dated_back[etag] = seconds

    def answer(self, bodies, status, headers=None):
        """
        Give the next attempts of some operations an answer that is not S3's.

        :param bodies: What it is, by the operation.
        :param headers: Its headers.
        :returns: A Deferred that fires when the last of them is given.
        """
        self._answers = {
            name: (status, body, headers or {}) for name, body in bodies.items()
        }
        self._all_given = Deferred()
        return self._all_given

    def lose(self, operation, times=1):
        """Lose the answers to the next attempts of an operation; S3 has sent them."""
        self._losing[operation] = times

    async def _attempt(self, request, *args):
        if request.operation in self._answers:
            self.counts[request.operation] += 1
            status, body, headers = self._answers.pop(request.operation)
            if not self._answers:
                self._all_given.callback(None)
            return await self._reader.read(request, status, headers, body, False)
        answer = super()._attempt(request, *args)
        if not self._losing.get(request.operation):
            return await answer
        self._losing[request.operation] -= 1
        with contextlib.suppress(S3Error):  # which would have been the answer
            await answer
        raise S3Unreachable("the answer was lost")

    def die_after(self, calls):
        """Die at the call after so many more, before it reaches S3."""
        self._calls_left = calls

    @property
    def is_dead(self):
        return self._dead

    def die(self):
        """Die now."""
        self._dead = True

    def rise(self):
        """Begin a new life."""
        self._dead = False
        self._calls_left = None

    def hold(self, operation):
        """
        Hold the next call of an operation back.

        :returns: A Deferred that fires when it is held, and one to let it go on.
        """
        held, goes_on = Deferred(), Deferred()
        self._holds[operation] = held, goes_on
        return held, goes_on

    def hold_answer(self, operation):
        """The same, when it has been carried out."""
        held, goes_on = self._answer_holds[operation] = Deferred(), Deferred()
        return held, goes_on

    async def ask(self, request):
        if self._calls_left is not None and not self._dead:
            if not self._calls_left:
                self._dead = True
                raise Killed
            self._calls_left -= 1
        if self._dead:
            raise Killed
        self.asked.append(request.operation)
        if request.operation in self._holds:
            await self._hold(self._holds.pop(request.operation), request)
        answer = await super().ask(request)
        if request.operation in self._answer_holds:
            await self._hold(self._answer_holds.pop(request.operation), request)
        back = self._dated_back.get(answer.headers.get("etag"))
        if back is not None and "last-modified" in answer.headers:
            modified = http_date(answer.headers["last-modified"]) - back
            headers = {
                **answer.headers,
                "last-modified": formatdate(modified, usegmt=True),
            }
            answer = evolve(answer, headers=headers)
        return answer

    async def _hold(self, hold, request):
        held, goes_on = hold
        held.callback(request)
        await goes_on
        if self._dead:
            raise Killed


class Settled:
    """
    What backends on the server of the tests need not find out again and again.

    To set botocore up, and to test the store, takes longer than many a test.
    """

    def __init__(self):
        self._found = {}
        self._tested = set()

    def resolve(self, settings, clock, in_thread):
        """Find the server as ``resolved`` does, once."""
        if settings.bucket not in self._found:
            self._found[settings.bucket] = resolved(settings, clock, in_thread)
        found = self._found[settings.bucket]
        return Access(
            found.base,
            found.region,
            found.service,
            found.model,
            found._credentials,
            clock,
            in_thread,
        )

    async def probe(self, staging):
        """Test the store, once."""
        if staging.settings.bucket not in self._tested:
            await probe(staging)
            self._tested.add(staging.settings.bucket)


_SETTLED = Settled()


class OnS3(_Case):
    """What the contract asks for, on a bucket of SeaweedFS. A mixin."""

    abilities = frozenset(
        {IAbilities, IClaimable, IDownloadable, IPaged, IRefreshable, ISorted}
    )
    has_directories = False
    records_total_at_once = False
    settings: dict[str, Any] = {}
    prefix = "in/"
    notifies = False

    #: Whether each backend finds the store and tests it, as it does in production.
    starts_in_full = True

    def setUp(self):
        super().setUp()
        for name, value in ENVIRONMENT.items():
            old = os.environ.get(name)
            os.environ[name] = value
            self.addCleanup(self._restore, name, old)
        self.bucket = Bucket(self, used=True)

    def _restore(self, name, old):
        if old is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = old

    def node(
        self,
        budget=None,
        make_client=MortalClient,
        patience=60.0,
        workers=1,
        **settings,
    ):
        """
        A backend on the bucket, not started.

        :param make_client: Makes what asks S3.
        :param patience: As of :class:`~txbits.backends.s3.S3Backend`.
        :param workers: The same.
        :param budget: The memory that it shares; its own by default, since those that
            die here give nothing back.
        """
        given = {
            "prefix": self.prefix,
            "endpoint": self.bucket.server.endpoint,
            "region": REGION,
            "part_size": 5 * MIB,
            **self.settings,
            **settings,
        }
        how = {}
        if not self.starts_in_full and not {"endpoint", "ca", "profile"} & set(
            settings
        ):
            how = {"resolve": _SETTLED.resolve, "probe": _SETTLED.probe}
        return S3Backend(
            S3Settings(bucket=self.bucket.name, **given),
            reactor,
            notifies=self.notifies,
            make_client=make_client,
            budget=budget or Budget(),
            patience=patience,
            workers=workers,
            **how,
        )

    def client(self, backend) -> Any:
        """What asks S3 for a backend."""
        return backend.staging.bucket.client

    def make_backend(self):
        # A fresh store: some tests of the contract take several.
        self.prefix = f"in-{uuid4()}/"
        return self.node()

    def reopen_backend(self, backend):
        if backend._opened is not None:
            self.client(backend).die()
        return self.node(prefix=backend.settings.prefix)

    def published(self, backend, destination):
        return deferToThread(self.bucket.read, backend.settings.key(destination))

    def place(self, backend, destination, data):
        return deferToThread(self.bucket.put, backend.settings.key(destination), data)

    def leftovers(self, backend):
        return deferToThread(self.left, backend.settings)

    def left(self, settings):
        """Everything but published files, records of closes, and claims."""
        left = []
        pages = self.bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.name, Prefix=settings.staging
        )
        for page in pages:
            for one in page.get("Contents", ()):
                if one["Key"].startswith(f"{settings.staging}{CLAIMS}/"):
                    continue
                if not one["Key"].endswith("/record") or one["Size"] >= LEAST_OPEN:
                    left.append(one["Key"])
        uploads = self.bucket.uploads(settings.prefix)
        return left + [f"{key}#{upload}" for key, upload in uploads]


class S3Case(OnS3, ContractBase, TestCase):
    """Backends on one bucket, and what is done with them."""

    starts_in_full = False

    def make_backend(self):
        return self.node()

    async def turn(self):
        """Give the reactor a turn: what has called us goes on until it waits."""
        pause: Deferred[None] = Deferred()
        reactor.callLater(0, pause.callback, None)  # type: ignore[attr-defined]
        await pause

    def data(self, length):
        """So many bytes, no two MiB of which are the same."""
        block = bytes(range(256)) * 64
        blocks = -(-length // (len(block) + 4))
        return b"".join(number.to_bytes(4, "big") + block for number in range(blocks))[
            :length
        ]

    async def another(self, backend):
        """Another node on the same bucket and prefix."""
        return await self._start(self.node(prefix=backend.settings.prefix))

    async def send(self, session, total, data):
        """A fragment, in pieces as they come from a network."""
        pieces = (data[at : at + 250_000] for at in range(0, len(data), 250_000))
        await self.append(session, total, *pieces)

    async def clean_up_late(self, backend):
        """What a clean-up removes when all that nobody owns is old."""
        staging = backend.staging
        clock = staging.clock
        staging.clock = Ahead(2 * 86_400.0, clock)
        try:
            await backend.clean_up(0)
        finally:
            staging.clock = clock

    async def close(self, backend, session, overwrite=False):
        """What the manager does at Close."""
        closed = session.session_id, session.destination, session.owner
        try:
            await session.publish(overwrite=overwrite, create_directories=False)
        except NoSuchSession:
            if not await backend.recalls_close(*closed):
                raise
            return
        await session.release(remember=True)
