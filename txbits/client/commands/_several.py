"""
Uploads of several files: some at a time, with one journal and one bar for all.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList

from txbits.client._bodies import Throttle
from txbits.client._display import (
    Display,
    NoDisplay,
    PlainDisplay,
)
from txbits.client._exchange import ILine
from txbits.client._runs import FileJournal, RunJournal
from txbits.client._url import to_wire
from txbits.client.commands._command import (
    GO_ON,
    Status,
    explain,
    failure_fields,
)
from txbits.client.commands._one import Uploader
from txbits.client.commands._options import NOT_ALONE, state_path
from txbits.client.commands._plan import Item
from txbits.client.commands._show import display_for
from txbits.client.events import Event, Progress, UploadResult, Waiting
from txbits.client.journal import name_of
from txbits.client.source import FileSource, printable
from txbits.protocol.urls import without_link

#: How many files are uploaded at a time.
DEFAULT_JOBS = 8

#: Which exit status counts, of several files: the first that one of them has.
_WORST = (Status.GAVE_UP, Status.CHANGED, Status.USAGE, Status.REFUSED, Status.DONE)


@define
class Several(Uploader):
    """Uploads several files."""

    _left: deque[Item] = field(init=False)
    _has_given_up: bool = field(init=False, default=False)
    _workers: int = field(init=False, default=0)
    _statuses: set[Status] = field(init=False, factory=lambda: {Status.DONE})
    _journal: RunJournal | None = field(init=False, default=None)
    _earlier: _Earlier | None = field(init=False, default=None)
    _shared: _Shared = field(init=False)

    async def run(self, items: Sequence[Item]) -> Status:
        """Upload them, and tell the worst of what came of each."""
        context, options = self.context, self.options
        self._left = deque(items)
        total = await context.run(_length_of_all, items)
        self._shared = _Shared(self, len(items), total)
        await self._open_journal(items)
        jobs = min(options.jobs, len(items))
        throttle = Throttle(context.reactor, self.settings.limit_rate, max(1, jobs))
        status = None
        try:
            lines = [
                context.line(context.reactor, self.settings, throttle)
                for _ in range(jobs)
            ]
            work = [Deferred.fromCoroutine(self._work(line)) for line in lines]
            for _, failure in await DeferredList(work, consumeErrors=True):
                if failure is not None:
                    failure.raiseException()
            status = next(each for each in _WORST if each in self._statuses)
        finally:
            self._shared.end()
            if self._journal is not None:
                await self._journal.finish(all_done=status is Status.DONE)
        if self._has_given_up:
            left = f"{len(self._left):,} of {len(items):,} files"
            words = f"{left} were not sent; " if self._left else ""
            context.complain(f"{words}{GO_ON}")
        self._shared.summarize()
        return status

    async def _work(self, line: ILine) -> None:
        """Upload files on one connection until none is left."""
        self._workers += 1
        try:
            while self._left and not self._has_given_up:
                item = self._left.popleft()
                status = await self._upload(item, line)
                if status is None:
                    # The others may be the reason: a server can limit the sessions of
                    # a user. They go on, and take this file at the end.
                    self._left.append(item)
                    break
                self._statuses.add(status)
                # What keeps this file from arriving keeps the others.
                self._has_given_up |= status is Status.GAVE_UP
        finally:
            self._workers -= 1
            await line.close()

    async def _upload(self, item: Item, line: ILine) -> Status | None:
        """Upload a file; ``None`` if it gave up, but others are being uploaded."""
        try:
            await self._try(item, line)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  the other files are sent anyway
            status, words = explain(error, self.options)
            if status is Status.GAVE_UP and self._workers > 1:
                return None
            self._shared.end()
            self.context.complain(f"{printable(item.path)}: {words}")
            if self.options.json:
                self.context.say_json(
                    event="failed",
                    file=item.path,
                    exit=int(status),
                    error=words,
                    **failure_fields(error),
                )
            return status
        return Status.DONE

    async def _try(self, item: Item, line: ILine) -> None:
        source = self.open_source(item)
        try:
            journal = await self._journal_of(item, source)
            if journal is not None and journal.found is not None and journal.found.done:
                self._shared.done(item, source.length, None)
                return
            display = self._shared.display(item, source)
            exchange = line.exchange(to_wire(item.url))
            job = self.make_job(item, source, journal, exchange, display)
            self._shared.done(item, source.length, await job.start())
        finally:
            source.close()

    async def _open_journal(self, items: Sequence[Item]) -> None:
        context, options = self.context, self.options
        if options.no_state:
            return
        directory = state_path(context, options)
        await self.tidy(directory)
        self._earlier = await context.run(_Earlier.of, directory, items)
        self._journal = await self.usable(
            RunJournal.open(
                directory,
                options.url,
                self._earlier.names,
                clock=context.reactor,
                now=context.now,
                run=context.run,
                files=context.files,
            )
        )
        if not self._journal.is_alone and not options.quiet:
            context.complain(NOT_ALONE)

    async def _journal_of(self, item: Item, source: FileSource) -> FileJournal | None:
        if self._journal is None or self._earlier is None or source.identity is None:
            return None
        journal = self._journal.of_file(item.url, source.identity)
        if journal.name in self._earlier.journals:
            path = self._earlier.directory / journal.name
            earlier = await self.open_journal(path, item, source.identity)
            entry = earlier.found or earlier.stale
            if entry is not None:
                await journal.adopt(entry)
            await earlier.remove()
        self.warn(item, journal)
        return journal


@frozen
class _Earlier:
    """
    What there is when a run begins.

    :ivar names: What the journals of its files are called.
    :ivar journals: Which of them there are: from runs that had one file.
    """

    directory: Path
    names: frozenset[str]
    journals: frozenset[str]

    @classmethod
    def of(cls, directory: Path, items: Sequence[Item]) -> _Earlier:
        names = frozenset(
            name_of(item.url, os.path.realpath(item.path)) for item in items
        )
        present = os.listdir(directory) if directory.is_dir() else []
        return cls(directory, names, names.intersection(present))


def _length_of_all(items: Sequence[Item]) -> int:
    return sum(map(_length, items))


def _length(item: Item) -> int:
    try:
        return os.stat(item.path).st_size
    except OSError:
        # It is told when its turn comes.
        return 0


@define
class _Shared:
    """
    Shows the progress of all files: one bar on a terminal, and otherwise a line for
    each file.
    """

    uploader: Uploader
    count: int
    total: int
    _bar: Display = field(init=False, factory=NoDisplay)
    _is_bar: bool = field(init=False)
    _sent: int = field(init=False, default=0)
    _acknowledged: int = field(init=False, default=0)
    _files: int = field(init=False, default=0)
    _bytes: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        context, options = self.uploader.context, self.uploader.options
        is_shown = not (options.quiet or options.json or options.verbose)
        if is_shown:
            self._bar = display_for(context.out, context.reactor)
        self._is_bar = is_shown and not isinstance(self._bar, PlainDisplay)

    def display(self, item: Item, source: Any) -> Display:
        """Make the display of one file."""
        context, options = self.uploader.context, self.uploader.options
        if options.json:
            return self.uploader.json_display(item, source)
        if options.verbose:
            prefix = f"{printable(item.path)}: "
            return PlainDisplay(
                context.out, context.reactor, verbose=True, prefix=prefix
            )
        return _Part(self, printable(item.path))

    def done(self, item: Item, length: int, result: UploadResult | None) -> None:
        """A file is at its destination."""
        self._files += 1
        self._bytes += length
        if result is None:
            self.moved(length, length)
        if not self._is_bar:
            self.uploader.say_done(item, length, result)

    def moved(self, sent: int, acknowledged: int) -> None:
        """More bytes were sent and acknowledged than before."""
        self._sent += sent
        self._acknowledged += acknowledged
        # A file may have grown since.
        self.total = max(self.total, self._sent)
        self._bar.show(Progress(self._sent, self._acknowledged, self.total))

    def show(self, event: Event) -> None:
        """Something else happened to a file."""
        self._bar.show(event)

    def end(self) -> None:
        """What is written next starts a line."""
        self._bar.end()

    def summarize(self) -> None:
        """Say how much is at its destination."""
        options = self.uploader.options
        if not (options.quiet or options.json):
            files = f"{self._files:,} of {self.count:,} files"
            self.uploader.context.say(
                f"{files} ({self._bytes:,} bytes) are at {without_link(options.url)}"
            )


@define
class _Part:
    """Adds the progress of one file to that of all."""

    shared: _Shared
    name: str
    _sent: int = field(init=False, default=0)
    _acknowledged: int = field(init=False, default=0)

    def show(self, event: Event) -> None:
        """See :class:`~txbits.client._display.Display`."""
        if isinstance(event, Progress):
            sent = event.sent - self._sent
            acknowledged = event.acknowledged - self._acknowledged
            self._sent, self._acknowledged = event.sent, event.acknowledged
            if sent or acknowledged:
                self.shared.moved(sent, acknowledged)
        elif isinstance(event, Waiting):
            self.shared.show(Waiting(event.seconds, f"{self.name}: {event.cause}"))

    def end(self) -> None:
        """See :class:`~txbits.client._display.Display`."""
