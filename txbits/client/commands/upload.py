"""
``txbits upload FILE... URL``.
"""

from __future__ import annotations

import argparse
import os
import stat
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError

from txbits.client._display import Display, JSONDisplay, NoDisplay
from txbits.client._journals import (
    forget_old,
    name_of,
)
from txbits.client._streams import PipeSource
from txbits.client._url import to_wire
from txbits.client.commands import _types
from txbits.client.commands._command import (
    Command,
    Context,
    Status,
    UsageError,
    explain,
)
from txbits.client.commands._options import (
    NOT_ALONE,
    add_connection_options,
    add_retry_option,
    add_state_option,
    add_trust_option,
    connection_settings,
    state_path,
)
from txbits.client.commands._plan import STDIN, Item, plan
from txbits.client.commands._show import display_for
from txbits.client.events import UploadFailed, UploadResult
from txbits.client.job import UploadJob
from txbits.client.journal import Journal, JournalBusy, JournalError
from txbits.client.settings import ConnectionSettings
from txbits.client.source import FileSource, SourceError, printable

_GO_ON = "the same command goes on where it stopped"

_OTHER_STATE = "--state names another place, --no-state does without"

#: Which exit status counts, of several files: the first that one of them has.
_WORST = (Status.GAVE_UP, Status.CHANGED, Status.USAGE, Status.REFUSED, Status.DONE)


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "files",
        metavar="FILE",
        nargs="+",
        help="what to upload; - is standard input",
    )
    add(
        "url",
        metavar="URL",
        type=_types.url,
        help="where it is to appear, http or https; one that ends with a slash is a "
        "folder, in which each file has its own name",
    )
    add(
        "--no-check",
        action="store_true",
        help="do not check the modification time of files; a change of content that "
        "leaves the length the same then goes unnoticed",
    )
    add("-r", "--recursive", action="store_true", help="send the files of directories")
    add(
        "--length",
        metavar="BYTES",
        type=_types.length,
        help="how many bytes standard input has",
    )
    add(
        "--reply",
        metavar="FILE",
        help="put the server application's reply there; it fails if there is none",
    )
    add(
        "--fragment-size",
        metavar="BYTES",
        type=_types.size,
        help="how much is sent at a time (default: as much as the network takes in "
        "some seconds, from 5 KB to 13 MB)",
    )
    add(
        "--limit-rate",
        metavar="BYTES",
        type=_types.size,
        help="send at most so much in a second; K, M and G may follow",
    )
    add_retry_option(parser)
    add_state_option(parser)
    add("--no-state", action="store_true", help="write nothing down; begin anew")
    add_connection_options(parser)
    add_trust_option(parser)
    group = parser.add_argument_group("what is said").add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="a line of JSON an event")
    group.add_argument("-q", "--quiet", action="store_true", help="failures only")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="each session and fragment"
    )


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    items, left_out = await context.run(
        lambda: plan(options.files, options.url, recursive=options.recursive)
    )
    for words in left_out:
        context.complain(words)
    _check(items, options)
    settings = connection_settings(context, options, options.url)
    uploads = _Uploads(context, options, settings, several=len(items) > 1)
    return await uploads.run(items)


def _check(items: list[Item], options: argparse.Namespace) -> None:
    from_stdin = items and items[0].path == STDIN
    if options.length is not None and not from_stdin:
        raise UsageError("--length is for standard input only")
    if len(items) > 1 and options.reply is not None:
        raise UsageError("--reply takes a single file")
    if options.reply is not None:
        folder = os.path.dirname(options.reply) or os.curdir
        if not os.path.isdir(folder):
            raise UsageError(f"--reply: {printable(folder)} is not a folder")
    if (
        len(items) > 1
        and options.state is not None
        and not os.path.isdir(options.state)
    ):
        raise UsageError("with several files --state has to be a folder")


@define
class _Uploads:
    """One file after the other."""

    context: Context
    options: argparse.Namespace
    settings: ConnectionSettings
    several: bool
    _done: list[Journal] = field(init=False, factory=list)

    async def run(self, items: list[Item]) -> Status:
        if not self.several:
            for item in items:
                await self._upload(item)
            return Status.DONE
        statuses = {Status.DONE}
        for number, item in enumerate(items):
            status = await self._one_of_several(item)
            statuses.add(status)
            if status is Status.GAVE_UP:
                # What keeps this file from arriving keeps the others.
                left = len(items) - number - 1
                self.context.complain(f"{left} files were not tried; {_GO_ON}")
                break
        status = next(each for each in _WORST if each in statuses)
        if status is Status.DONE:
            for journal in self._done:
                await self._forget(journal)
        return status

    async def _one_of_several(self, item: Item) -> Status:
        try:
            await self._upload(item)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  the other files are sent anyway
            status, line = explain(error)
            self._failed(item, error, status, line)
            return status
        return Status.DONE

    def _failed(self, item: Item, error: Exception, status: Status, line: str) -> None:
        self.context.complain(f"{printable(item.path)}: {line}")
        if self.options.json:
            fields: dict[str, Any] = {"exit": int(status), "error": line}
            if isinstance(error, UploadFailed):
                fields["status"], fields["hresult"] = error.status, error.hresult
            self.context.say_json(event="failed", file=item.path, **fields)

    async def _upload(self, item: Item) -> None:
        source = self._source(item)
        journal: Journal | None = None
        try:
            if isinstance(source, FileSource):
                journal = await self._journal(item, source)
            if journal is not None and journal.found is not None and journal.found.done:
                self._done.append(journal)
                self._say(item, source, None)
                return
            display = self._display(item, source)
            try:
                result = await self._job(item, source, journal, display).start()
            finally:
                display.end()
            if journal is not None and self.several:
                self._done.append(journal)
            self._say(item, source, result)
        finally:
            source.close()
            if journal is not None:
                journal.close()

    def _job(
        self, item: Item, source: Any, journal: Journal | None, display: Display
    ) -> UploadJob:
        context, options = self.context, self.options
        return UploadJob(
            source,
            item.url,
            reactor=context.reactor,
            fragment_size=options.fragment_size,
            retry_for=options.retry_for,
            settings=self.settings,
            reply=options.reply,
            journal=journal,
            on_event=display.show,
            exchange=context.exchange(
                context.reactor, to_wire(item.url), self.settings
            ),
        )

    async def _journal(self, item: Item, source: FileSource) -> Journal | None:
        context, options = self.context, self.options
        if options.no_state or source.identity is None:
            return None
        path: Path = state_path(context, options)
        if options.state is None or os.path.isdir(path):
            try:
                await context.run(forget_old, path, context.now())
            except OSError as error:
                words = f"{path}: {error.strerror or error}"
                raise UsageError(f"{words} ({_OTHER_STATE})") from error
            path /= name_of(item.url, source.identity.path)
        try:
            journal: Journal = await Journal.open(
                path,
                item.url,
                source.identity,
                context.now,
                context.run,
                context.files,
            )
        except JournalBusy:
            raise
        except JournalError as error:
            raise UsageError(f"{error} ({_OTHER_STATE})") from error
        journal.keeps_done = self.several
        context.hint = _GO_ON
        self._warn(item, journal)
        return journal

    def _warn(self, item: Item, journal: Journal) -> None:
        context, options = self.context, self.options
        if options.quiet:
            return
        if not journal.is_alone:
            context.complain(NOT_ALONE)
        if journal.was_lost:
            context.complain(
                f"{journal.path} was lost when the machine crashed; "
                f"{printable(item.path)} is sent from the beginning"
            )
        stale = journal.stale
        if stale is not None and not stale.done:
            context.complain(
                f"{printable(item.path)} has changed since it was partly sent; it is "
                "sent from the beginning"
            )

    async def _forget(self, done: Journal) -> None:
        """Remove a journal that was kept for the others' sake."""
        try:
            journal = await Journal.open(
                done.path, done.url, done.file, self.context.now, self.context.run
            )
        except JournalBusy:
            # Someone sends the file again.
            return
        await journal.remove()

    def _source(self, item: Item) -> Any:
        try:
            if item.path == STDIN:
                return self._stdin()
            return FileSource.open(item.path, check_time=not self.options.no_check)
        except OSError as error:
            words = error.strerror or error
            raise UsageError(f"{printable(item.path)}: {words}") from error
        except (SourceError, ValueError) as error:
            raise UsageError(str(error)) from error

    def _stdin(self) -> Any:
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
            raise UsageError("standard input needs --length: BITS wants to know it")
        return PipeSource(self.context.reactor, descriptor, length)

    def _display(self, item: Item, source: Any) -> Display:
        context, options = self.context, self.options
        if options.json:
            context.say_json(
                event="file", file=item.path, url=item.url, length=source.length
            )
            return JSONDisplay(context.out, context.reactor)
        if options.quiet:
            return NoDisplay()
        if self.several:
            context.say(printable(item.path))
        return display_for(context.out, context.reactor, verbose=options.verbose)

    def _say(self, item: Item, source: Any, result: UploadResult | None) -> None:
        """Say that a file is at its destination; without a result it was before."""
        if self.options.json:
            self.context.say_json(
                event="done",
                file=item.path,
                url=item.url,
                length=source.length,
                session=None if result is None else result.session_id,
                acknowledged=result is None or result.is_acknowledged,
                reply_url=None if result is None else result.reply_url,
            )
        elif not self.options.quiet:
            already = " already" if result is None else ""
            line = f"{source.length:,} bytes are{already} at {item.url}"
            if result is not None and not result.is_acknowledged:
                line += " (the server's answer was lost, but the file is there)"
            self.context.say(line)


COMMAND = Command(
    name="upload",
    help="upload files",
    description="Upload files, going on where they stopped when a connection is lost, "
    "or the server or this command is started again.",
    arguments=_arguments,
    perform=_perform,
    statuses=(Status.REFUSED, Status.GAVE_UP, Status.CHANGED),
)
