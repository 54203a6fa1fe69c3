"""
The upload of one file, by itself or as one of several.
"""

from __future__ import annotations

import argparse
import os
import stat
from pathlib import Path
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import Deferred

from txbits.client._display import Display, JSONDisplay, NoDisplay
from txbits.client._exchange import IExchange
from txbits.client._journals import forget, forget_old, left_by_runs
from txbits.client._runs import is_taken
from txbits.client._streams import PipeSource
from txbits.client._url import to_wire
from txbits.client.commands._command import (
    GO_ON,
    Context,
    Status,
    UsageError,
)
from txbits.client.commands._options import NOT_ALONE, state_path
from txbits.client.commands._plan import STDIN, Item
from txbits.client.commands._show import display_for
from txbits.client.events import UploadResult
from txbits.client.job import UploadJob
from txbits.client.journal import (
    Journal,
    JournalBusy,
    JournalError,
    UploadJournal,
    name_of,
)
from txbits.client.settings import ConnectionSettings
from txbits.client.source import FileIdentity, FileSource, SourceError, printable

T = TypeVar("T")

_OTHER_STATE = "--state names another place; --no-state keeps no journal"


@define
class Uploader:
    """
    What uploads of one file and of several have in common.

    :ivar options: The parsed command line.
    :ivar settings: How the server is reached.
    """

    context: Context
    options: argparse.Namespace
    settings: ConnectionSettings

    def make_job(
        self,
        item: Item,
        source: Any,
        journal: UploadJournal | None,
        exchange: IExchange,
        display: Display,
    ) -> UploadJob:
        """Make the job that uploads a file."""
        options = self.options
        return UploadJob(
            source,
            item.url,
            reactor=self.context.reactor,
            fragment_size=options.fragment_size,
            retry_for=options.retry_for,
            settings=self.settings,
            reply=options.reply,
            journal=journal,
            on_event=display.show,
            exchange=exchange,
        )

    def open_source(self, item: Item) -> Any:
        """
        Open a file.

        :raises UsageError: If that cannot be done.
        """
        try:
            if item.path == STDIN:
                return self._open_stdin()
            return FileSource.open(item.path, check_time=not self.options.no_check)
        except OSError as error:
            words = error.strerror or error
            raise UsageError(f"{printable(item.path)}: {words}") from error
        except (SourceError, ValueError) as error:
            raise UsageError(str(error)) from error

    def _open_stdin(self) -> Any:
        descriptor, length = self.context.stdin, self.options.length
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            first = os.lseek(descriptor, 0, os.SEEK_CUR)
            source = FileSource.from_descriptor(
                descriptor, first, check_time=not self.options.no_check
            )
            if length not in (None, source.length):
                source.close()
                raise UsageError(
                    f"standard input has {source.length:,} bytes, not {length:,}"
                )
            return source
        if length is None:
            raise UsageError(
                "standard input needs --length: BITS needs the length in advance"
            )
        return PipeSource(self.context.reactor, descriptor, length)

    async def tidy(self, directory: Path) -> None:
        """
        Remove old journals.

        :raises UsageError: If the directory cannot be used.
        """
        context = self.context
        try:
            await context.run(forget_old, directory, context.now())
        except OSError as error:
            words = f"{directory}: {error.strerror or error}"
            raise UsageError(f"{words} ({_OTHER_STATE})") from error

    async def usable(self, opening: Deferred[T]) -> T:
        """
        Wait until a journal is open.

        :raises JournalBusy: If another process is at the same upload.
        :raises UsageError: If the journal cannot be used.
        """
        try:
            journal = await opening
        except JournalBusy:
            raise
        except JournalError as error:
            raise UsageError(f"{error} ({_OTHER_STATE})") from error
        self.context.hint = GO_ON
        return journal

    async def open_journal(self, path: Path, item: Item, file: FileIdentity) -> Journal:
        """Open the journal of one file; it fails as :meth:`usable` does."""
        context = self.context
        return await self.usable(
            Journal.open(path, item.url, file, context.now, context.run, context.files)
        )

    def warn(
        self, item: Item, journal: UploadJournal, *, is_alone: bool = True
    ) -> None:
        """Warn if a file has changed since an earlier run, or if there are no locks."""
        if self.options.quiet:
            return
        if not is_alone:
            self.context.complain(NOT_ALONE)
        stale = journal.stale
        if stale is not None and not stale.done:
            self.context.complain(
                f"{printable(item.path)} has changed since it was partly sent; it is "
                "sent from the beginning"
            )

    def json_display(self, item: Item, source: Any) -> JSONDisplay:
        """Announce a file, and make what tells its events."""
        context = self.context
        context.say_json(
            event="file", file=item.path, url=item.shown_url, length=source.length
        )
        return JSONDisplay(context.out, context.reactor, {"file": item.path})

    def say_done(self, item: Item, length: int, result: UploadResult | None) -> None:
        """Say that a file is at its destination; without a result it was before."""
        if self.options.json:
            self.context.say_json(
                event="done",
                file=item.path,
                url=item.shown_url,
                length=length,
                session=None if result is None else result.session_id,
                acknowledged=result is None or result.is_acknowledged,
                reply_url=None if result is None else result.reply_url,
            )
        elif not self.options.quiet:
            already = " already" if result is None else ""
            line = f"{length:,} bytes are{already} at {item.shown_url}"
            if result is not None and not result.is_acknowledged:
                line += " (the server's answer was lost, but the file is there)"
            self.context.say(line)


@define
class One(Uploader):
    """Uploads one file, with a journal of its own."""

    async def run(self, item: Item) -> Status:
        """Upload it."""
        source = self.open_source(item)
        journal: Journal | None = None
        try:
            if isinstance(source, FileSource):
                journal = await self._journal(item, source)
            if journal is not None and journal.found is not None and journal.found.done:
                # An older txbits, which had a journal for each of several files.
                await journal.remove()
                self.say_done(item, source.length, None)
                return Status.DONE
            context = self.context
            exchange = context.exchange(
                context.reactor, to_wire(item.url), self.settings
            )
            display = self._display(item, source)
            try:
                job = self.make_job(item, source, journal, exchange, display)
                result = await job.start()
            finally:
                display.end()
            self.say_done(item, source.length, result)
        finally:
            source.close()
            if journal is not None:
                journal.close()
        return Status.DONE

    async def _journal(self, item: Item, source: FileSource) -> Journal | None:
        context, options = self.context, self.options
        if options.no_state or source.identity is None:
            return None
        path = directory = state_path(context, options)
        if options.state is None or os.path.isdir(path):
            await self.tidy(path)
            name = name_of(item.url, source.identity.path)
            if await context.run(is_taken, path, name, context.files):
                raise JournalBusy("another txbits is at this upload")
            path /= name
        journal = await self.open_journal(path, item, source.identity)
        if path != directory and journal.found is journal.stale is None:
            left = await context.run(
                left_by_runs, directory, journal.url, journal.file.path, context.files
            )
            if left is not None:
                await journal.adopt(left.entry)
                await context.run(forget, [left], context.files)
        self.warn(item, journal, is_alone=journal.is_alone)
        if journal.was_lost and not options.quiet:
            context.complain(
                f"{journal.path} was lost when the machine crashed; "
                f"{printable(item.path)} is sent from the beginning"
            )
        return journal

    def _display(self, item: Item, source: Any) -> Display:
        context, options = self.context, self.options
        if options.json:
            return self.json_display(item, source)
        if options.quiet:
            return NoDisplay()
        return display_for(context.out, context.reactor, verbose=options.verbose)
