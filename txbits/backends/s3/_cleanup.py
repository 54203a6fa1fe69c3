"""
Lists all sessions of a bucket, for quotas, and removes what belongs to none.

Any number of nodes may do this at the same time: an object that another node has
removed is no error.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from uuid import UUID

from attrs import define, field
from twisted.logger import Logger

from txbits._deferreds import a_few_at_a_time
from txbits.backends.s3._bucket import Found, Upload
from txbits.backends.s3._claims import Claims
from txbits.backends.s3._records import LEAST_OPEN, Record, Unreadable
from txbits.backends.s3._staging import CLAIMS, RECORD, Staging, name_of
from txbits.interfaces import SessionDetails, SessionSummary

_log = Logger()

#: How many records are read at a time.
_AT_ONCE = 16

#: How many sessions are listed at a time.
_PAGE = 256

#: How many names are looked at for a page of a list that may have few sessions: records
#: of closes have names as well.
_MOST_SEEN = 4000

#: How many records are kept from one listing to the next.
_MOST_KEPT = 100_000

#: Seconds after which an object that belongs to no session is removed.
_STRAY_AGE = 3600.0


@define
class _Group:
    """The objects under one name in the staging area."""

    name: str
    record: Found | None = None
    others: list[Found] = field(factory=list)

    @property
    def is_open(self) -> bool:
        """Whether this is a session, and not the record of a close."""
        return self.record is not None and self.record.size >= LEAST_OPEN


@define(eq=False)
class Survey:
    """
    Lists a whole staging area, a page at a time, and cleans it up.

    :ivar removed: How much was removed, by kind.
    """

    _staging: Staging
    _claims: Claims
    _kept: OrderedDict[str, tuple[str, Record]] = field(factory=OrderedDict, init=False)
    removed: Counter[str] = field(factory=Counter, init=False)

    async def sessions(self) -> list[SessionSummary]:
        """List the sessions; see :class:`~txbits.interfaces.IBackend`."""
        return [one async for page in self.pages() for one in page]

    async def pages(self) -> AsyncIterator[list[SessionSummary]]:
        """List the sessions, a few at a time."""
        groups: list[_Group] = []
        async for group in self._groups():
            if group.is_open:
                groups.append(group)
            if len(groups) == _PAGE:
                yield await self._summaries(groups)
                groups = []
        yield await self._summaries(groups)

    async def _summaries(self, groups: list[_Group]) -> list[SessionSummary]:
        summaries = await a_few_at_a_time(_AT_ONCE, self._summary, groups)
        return [one for one in summaries if one is not None]

    async def after(
        self, session_id: UUID | None, limit: int
    ) -> tuple[list[SessionDetails], UUID | None]:
        """List some sessions; see :class:`~txbits.interfaces.ISorted`."""
        # Every name of a session begins with a brace.
        start = self._staging.settings.staging + "{"
        if session_id is not None:
            # Greater than all of its keys, which have a slash there.
            start = f"{self._staging.settings.staging}{name_of(session_id)}0"
        groups: list[_Group] = []
        last, seen = session_id, 0
        async with aclosing(self._groups(start=start)) as found:
            async for group in found:
                if len(groups) == limit or seen == _MOST_SEEN:
                    break
                seen += 1
                last = _id_of(group.name) or last
                if group.is_open:
                    groups.append(group)
            else:
                last = None
        details = await a_few_at_a_time(_AT_ONCE, self._details, groups)
        return [one for one in details if one is not None], last

    async def _summary(self, group: _Group) -> SessionSummary | None:
        details = await self._details(group)
        if details is None:
            return None
        return SessionSummary(
            details.session_id,
            details.owner,
            details.last_progress,
            details.published or details.releasing,
            details.published,
            details.total or 0,
        )

    async def _details(self, group: _Group) -> SessionDetails | None:
        try:
            record = await self._record(group)
        except Unreadable as error:
            _log.error("session left out: {fault}", fault=error)
            return None
        if record is None or group.record is None:
            return None
        staging = self._staging
        is_published = False
        if not record.is_taken and (
            record.state == "publishing"
            or (
                record.state == "open"
                and record.is_small
                and len(record.inline) == record.total
            )
        ):
            is_published = (
                await staging.is_published(record.destination, record.session_id)
                is not None
            )
        latest = max(one.modified for one in [group.record, *group.others])
        return SessionDetails(
            session_id=record.session_id,
            destination=record.destination,
            owner=record.owner,
            content_name=record.content_name,
            created=record.created,
            total=record.total,
            offset=self._offset(record, group.record.etag, is_published),
            last_progress=staging.epoch(staging.ours(latest)),
            published=is_published,
            releasing=record.state in ("releasing", "closing"),
            in_doubt=record.in_doubt,
            attempts=record.attempts,
            answer=record.answer,
        )

    def _offset(self, record: Record, etag: str, is_published: bool) -> int | None:
        """
        Tell how many bytes of a session are held, if that takes no requests.

        :param etag: The ETag of its record.
        """
        if record.total is None:
            return 0
        if is_published or record.file is not None:
            return record.total
        if record.is_small:
            return len(record.inline)
        known = self._staging.known.get(record.session_id)
        # Other nodes change the record before they acknowledge more.
        if known is not None and known.etag == etag:
            return int(known.offset)
        return None

    async def _record(self, group: _Group) -> Record | None:
        """Read the record of a session, unless it is known from the last listing."""
        session_id = _id_of(group.name)
        if group.record is None or session_id is None:
            return None
        known = self._kept.get(group.name)
        if known is not None and known[0] == group.record.etag:
            return known[1]
        stored = await self._staging.read(session_id)
        if stored is None or not isinstance(stored.record, Record):
            self._kept.pop(group.name, None)
            return None
        if not stored.record.inline:
            # Records of small files are larger, and change or are removed soon.
            self._kept[group.name] = stored.etag, stored.record
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return stored.record

    async def records(self) -> list[Record]:
        """
        Read the records of all sessions that have not ended.

        :raises BackendError: If one of them cannot be read.
        """
        groups = [group async for group in self._groups() if group.is_open]
        records = await a_few_at_a_time(_AT_ONCE, self._record, groups)
        return [one for one in records if one is not None]

    async def clean_up(self, closed_before: float) -> None:
        """Remove what is old; see :class:`~txbits.interfaces.IBackend`."""
        staging = self._staging
        closed_before = staging.steadily(closed_before)
        stray_before = staging.clock.seconds() - _STRAY_AGE
        stale: dict[str, str] = {}
        owned: set[str] = set()
        candidates = await self._old_uploads()
        open_groups: list[_Group] = []
        claims: list[Found] = []
        async for group in self._groups(claims):
            if group.is_open:
                if candidates:
                    open_groups.append(group)
                continue
            is_closed = group.record is not None
            for found in group.others:
                if is_closed or staging.ours(found.modified) < stray_before:
                    stale[found.key] = "stray"
            if group.record is not None and (
                staging.ours(group.record.modified) < closed_before
            ):
                stale[group.record.key] = "close"
            if len(stale) >= 1000:
                await self._remove(stale)
                stale = {}
        await self._remove(stale)
        self.removed["claim"] += await self._claims.clean_up(claims)
        if not candidates:
            return
        for record in await a_few_at_a_time(_AT_ONCE, self._record, open_groups):
            if record is not None:
                owned.update(one for one in (record.upload, record.copy) if one)
        alive = {group.name for group in open_groups}
        for one in candidates:
            # Replies, also those that the application uploads, are in the folder of
            # their session.
            name = one.key.removeprefix(staging.settings.staging).partition("/")[0]
            is_within = one.key.startswith(staging.settings.staging) and name in alive
            if one.upload not in owned and not is_within:
                _log.info(
                    "multipart upload {upload} to {key} aborted: no session owns it",
                    upload=one.upload,
                    key=one.key,
                )
                await staging.bucket.abort(one.key, one.upload)
                self.removed["upload"] += 1

    async def _remove(self, stale: Mapping[str, str]) -> None:
        """
        Remove objects.

        :param stale: What they are, by their keys.
        """
        await self._staging.bucket.delete_all(list(stale))
        self.removed.update(stale.values())

    async def _old_uploads(self) -> list[Upload]:
        staging = self._staging
        settings = staging.settings
        oldest = staging.clock.seconds() - settings.orphan_age
        return [
            one
            for one in await staging.bucket.uploads(settings.prefix)
            if staging.ours(one.initiated) <= oldest
        ]

    async def _groups(
        self, claims: list[Found] | None = None, *, start: str = ""
    ) -> AsyncGenerator[_Group, None]:
        """
        List everything of sessions, by their names.

        :param claims: Gets the claims that are listed on the way.
        :param start: Begin with keys that are greater than this.
        """
        staging = self._staging
        prefix = staging.settings.staging
        group: _Group | None = None
        async for page in staging.bucket.pages(prefix, start=start):
            for found in page.found:
                name, _, rest = found.key.removeprefix(prefix).partition("/")
                if name == CLAIMS:
                    if claims is not None:
                        claims.append(found)
                    continue
                if group is None or group.name != name:
                    if group is not None:
                        yield group
                    group = _Group(name)
                if rest == RECORD:
                    group.record = found
                else:
                    group.others.append(found)
        if group is not None:
            yield group


def _id_of(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None
