"""
The claims of the S3 backend: objects ``PREFIX.bits-sessions/claims/{digest}``.

An object is only ever written on the condition that it is the one that was read, or
that there is none, so that one node of several gets a claim. Each time that a session
claims, the object changes: a node that withdraws does nothing if the session has
claimed again on another node, where it may be published. A claim that was withdrawn is
an object that says so, since S3 stores do not delete on a condition.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

from attrs import asdict, define, evolve, field, frozen
from zope.interface import implementer

from txbits._deferreds import a_few_at_a_time, deferred
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import Found, NotMet
from txbits.backends.s3._staging import CLAIMS, Staging
from txbits.errors import BackendError
from txbits.interfaces import IClaim

#: The greatest length of an object.
_MOST = 1024

#: How often to begin anew if others write at the same time.
_MOST_ROUNDS = 10

#: How many objects a clean-up reads at a time.
_AT_ONCE = 16

#: How many claims are kept from one clean-up to the next.
_MOST_KEPT = 100_000


@frozen
class _State:
    """
    What an object says.

    :ivar session: The session that has the claim; ``None`` if it was withdrawn.
    :ivar until: The time until which it is needed, in seconds since the epoch.
    :ivar stamp: New each time, so that a node recognizes its own write if the response
        was lost.
    """

    session: str | None
    until: float
    stamp: str = field(factory=lambda: uuid4().hex)

    def written(self) -> Body:
        return Body([json.dumps(asdict(self)).encode()])


def _state_of(found: Found) -> _State:
    try:
        told: Any = json.loads(found.body)
        session = told["session"]
        return _State(
            None if session is None else str(UUID(session)),
            float(told["until"]),
            str(told["stamp"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackendError(f"the claim {found.key!a} is damaged: {error}") from error


@define(eq=False)
class Claims:
    """The claims of one bucket and prefix."""

    _staging: Staging
    _kept: OrderedDict[str, tuple[str, float]] = field(factory=OrderedDict, init=False)

    async def take(self, name: str, session_id: UUID, until: float) -> IClaim | None:
        """Take one; see :class:`~txbits.interfaces.IClaimable`."""
        key = self._key(name)
        for _ in range(_MOST_ROUNDS):
            found = await self._read(key)
            if found is not None:
                state = _state_of(found)
                if state.session not in (None, str(session_id)):
                    return None
            state = _State(str(session_id), until)
            etag = await self._write(key, state, None if found is None else found.etag)
            if etag is not None:
                return Claim(self, key, evolve(state, session=None), etag)
        raise BackendError("other processes keep changing the claim")

    async def is_taken(self, name: str) -> bool:
        """Look one up; see :class:`~txbits.interfaces.IClaimable`."""
        found = await self._read(self._key(name))
        return found is not None and _state_of(found).session is not None

    async def give_back(self, key: str, state: _State, instead_of: str) -> None:
        """
        Write that one was withdrawn, unless it has changed.

        :param instead_of: The ETag of the object to replace.
        """
        await self._write(key, evolve(state, stamp=uuid4().hex), instead_of)

    async def clean_up(self, listed: Iterable[Found]) -> int:
        """
        Remove those that nobody needs any more.

        :param listed: All objects, as a listing has them.
        :returns: How many were removed.
        """
        now = self._staging.epoch(self._staging.clock.seconds())
        times = await a_few_at_a_time(_AT_ONCE, self._until, list(listed))
        old = [key for key, until in times if until < now]
        await self._staging.bucket.delete_all(old)
        return len(old)

    async def _until(self, listed: Found) -> tuple[str, float]:
        """The key of a claim, and the time until which it is needed."""
        key = listed.key
        known = self._kept.get(key)
        if known is None or known[0] != listed.etag:
            found = await self._read(key)
            if found is None:
                return key, float("inf")  # another node has removed it
            known = self._kept[key] = found.etag, _state_of(found).until
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return key, known[1]

    def _key(self, name: str) -> str:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._staging.settings.staging}{CLAIMS}/{digest}"

    async def _read(self, key: str) -> Found | None:
        return await self._staging.bucket.get(key, _MOST)

    async def _write(
        self, key: str, state: _State, instead_of: str | None
    ) -> str | None:
        """
        Write an object, unless another node has changed it.

        :param instead_of: The ETag of the object to replace; ``None`` if there must be
            none.
        :returns: The new ETag; ``None`` if nothing was written.
        """
        try:
            return await self._staging.bucket.put(
                key,
                state.written(),
                instead_of=instead_of,
                only_new=instead_of is None,
            )
        except NotMet:
            found = await self._read(key)
            if found is not None and _state_of(found).stamp == state.stamp:
                # An earlier attempt was carried out, and the response lost.
                return found.etag
            return None


@implementer(IClaim)
@frozen(eq=False)
class Claim:
    """A claim that was taken; see :class:`~txbits.interfaces.IClaim`."""

    _claims: Claims
    _key: str
    _withdrawn: _State
    _etag: str

    @deferred
    async def withdraw(self) -> None:
        """Give it back; see :class:`~txbits.interfaces.IClaim`."""
        await self._claims.give_back(self._key, self._withdrawn, self._etag)
