"""
``txbits upload --watch``: sends what comes to rest in a folder, and takes it away.

A file is sent when nothing has changed it for some time. It is deleted or moved only if
it is still what was sent. Between the Ack and that, the file's journal says that it is
done, so that a restart neither forgets nor repeats it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txbits._renaming import rename_without_replacing
from txbits.client._bodies import Throttle
from txbits.client._display import Display, NoDisplay, PlainDisplay
from txbits.client._exchange import ILine
from txbits.client._url import to_wire
from txbits.client.commands._command import (
    GO_ON,
    Status,
    UsageError,
    explain,
    failure_fields,
)
from txbits.client.commands._one import Uploader
from txbits.client.commands._options import state_path
from txbits.client.commands._plan import Item, below
from txbits.client.journal import Journal, name_of
from txbits.client.source import FileIdentity, FileSource, printable
from txbits.clocks import steady

#: How many seconds a file must stay unchanged, unless an option says otherwise.
DEFAULT_SETTLE = 5.0

#: How many files of a folder are kept in mind. The others wait.
MOST_FILES = 10_000

#: The least number of seconds between two looks into the folder.
_SHORTEST_PAUSE = 0.5

#: How many seconds a file waits that could not be sent: if a server may accept it
#: later, and if somebody has to do something first.
_RETRY_AFTER = 60.0
_REFUSED_AFTER = 600.0

#: How many names are tried for a file that is moved.
_MOST_NAMES = 1000

#: What a file is called while it is deleted.
_TAKEN = ".txbits-sent-"

_numbers = count()


@frozen
class State:
    """What tells whether a file has changed."""

    device: int
    inode: int
    length: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> State:
        """The state of a file."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def is_of(self, file: FileIdentity) -> bool:
        """Whether an open file is in this state, as far as is known."""
        return (
            (self.device, self.inode) == (file.device, file.inode)
            and self.length == file.length
            and file.modified in (None, self.modified)
        )


@define
class _Seen:
    """A file in the folder: its state, since when, and when it may be sent."""

    state: State
    since: float
    not_before: float


def look(folder: str, most: int = MOST_FILES) -> dict[str, State]:
    """
    List the files of a folder that may be sent. It blocks.

    Files whose names begin with a dot, symbolic links, and whatever is no regular file,
    are left out.

    :raises OSError: If the folder cannot be read.
    """
    found: dict[str, State] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[entry.name] = State.of(status)
                if len(found) == most:
                    break
    return found


def take_away(
    path: str,
    state: State,
    move_to: str | None,
    lstat: Callable[[str], os.stat_result] = os.lstat,
) -> bool:
    """
    Delete or move a file that was sent. It blocks.

    :param state: What was sent.
    :param move_to: The folder to move it to; ``None`` to delete it.
    :param lstat: Looks at a file.
    :returns: Whether it was still in this state. If not, it stays.
    :raises OSError: If that cannot be done.
    """
    try:
        if State.of(lstat(path)) != state:
            return False
        if move_to is None:
            # It may be replaced now. Under this name nobody replaces it.
            name = f"{_TAKEN}{os.getpid()}-{next(_numbers)}"
            taken = os.path.join(os.path.dirname(path), name)
            os.rename(path, taken)
        else:
            taken = _move(path, move_to)
    except FileNotFoundError:
        return False
    if State.of(lstat(taken)) != state:
        rename_without_replacing(taken, path)
        return False
    if move_to is None:
        os.unlink(taken)
    return True


def _move(path: str, folder: str) -> str:
    name = os.path.basename(path)
    for number in range(_MOST_NAMES):
        target = os.path.join(folder, f"{name}.{number}" if number else name)
        try:
            rename_without_replacing(path, target)
        except FileExistsError:
            continue
        return target
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), os.path.join(folder, name))


@define
class Watch(Uploader):
    """Uploads what comes to rest in a folder, until it is interrupted."""

    _seen: dict[str, _Seen] = field(init=False, factory=dict)
    _ready: deque[str] = field(init=False, factory=deque)
    _sending: dict[str, Deferred[None]] = field(init=False, factory=dict)
    _lines: list[ILine] = field(init=False, factory=list)
    _throttle: Throttle = field(init=False)
    _is_beginning: bool = field(init=False, default=False)
    _complaint: str = field(init=False, default="")
    _failure: Failure | None = field(init=False, default=None)

    async def run(self) -> Status:
        """
        Watch the folder.

        :returns: Never. It ends when it is cancelled, or with an error of this program.
        """
        context, options = self.context, self.options
        self._throttle = Throttle(
            context.reactor, self.settings.limit_rate, options.jobs
        )
        await context.run(_check, options.watch, options.move_to)
        if not options.no_state:
            await self.tidy(state_path(context, options))
        context.hint = GO_ON
        pause = max(options.settle / 2, _SHORTEST_PAUSE)
        try:
            while self._failure is None:
                await self._look()
                self._send_some()
                await deferLater(context.reactor, pause)
            self._failure.raiseException()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        self._ready.clear()
        sending = list(self._sending.values())
        for one in sending:
            one.cancel()
        await DeferredList(sending, consumeErrors=True)
        await self._close_lines()

    async def _close_lines(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            await line.close()

    async def _look(self) -> None:
        options, now = self.options, steady(self.context.reactor).seconds()
        try:
            found = await self.context.run(look, options.watch)
        except OSError as error:
            self._complain_once(f"{options.watch}: {error.strerror}; trying again")
            return
        self._complaint = ""
        for name in self._seen.keys() - found.keys():
            if name not in self._sending:
                del self._seen[name]
        ready = []
        for name, state in found.items():
            if name in self._sending:
                continue
            seen = self._seen.get(name)
            if seen is None or seen.state != state:
                seen = self._seen[name] = _Seen(state, now, now + options.settle)
            if seen.not_before <= now:
                ready.append(name)
        self._ready = deque(sorted(ready))
        if not self._ready and not self._sending:
            await self._close_lines()

    def _send_some(self) -> None:
        """Begin as many uploads as there may be."""
        if self._is_beginning:
            return
        self._is_beginning = True
        while self._ready and len(self._sending) < self.options.jobs:
            name = self._ready.popleft()
            sending = Deferred.fromCoroutine(self._send(name))
            self._sending[name] = sending
            sending.addBoth(self._sent, name)
        self._is_beginning = False

    def _sent(self, outcome: Failure | None, name: str) -> None:
        del self._sending[name]
        if isinstance(outcome, Failure):
            if not outcome.check(CancelledError):
                self._failure = outcome
            return
        self._send_some()

    async def _send(self, name: str) -> None:
        """Send a file, and take it away; if that fails, let it wait."""
        seen = self._seen[name]
        item = Item(
            os.path.join(self.options.watch, name), below(self.options.url, name)
        )
        line = self._lines.pop() if self._lines else self._new_line()
        try:
            is_gone = await self._upload(item, seen.state, line)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  the other files are sent anyway
            self._complain(item, error)
            status, _ = explain(error)
            later = _RETRY_AFTER if status is Status.GAVE_UP else _REFUSED_AFTER
            seen.not_before = steady(self.context.reactor).seconds() + later
        else:
            if is_gone:
                self._seen.pop(name, None)
            else:
                # It has changed, and has to come to rest again.
                seen.not_before = (
                    steady(self.context.reactor).seconds() + self.options.settle
                )
        finally:
            self._lines.append(line)

    def _new_line(self) -> ILine:
        context = self.context
        return context.line(context.reactor, self.settings, self._throttle)

    async def _upload(self, item: Item, state: State, line: ILine) -> bool:
        """
        Send a file, and take it away.

        :returns: Whether it is away; otherwise it has changed.
        """
        try:
            source: FileSource = self.open_source(item)
        except UsageError:
            if os.path.lexists(item.path):
                raise
            return True
        journal: Journal | None = None
        try:
            if source.identity is None or not state.is_of(source.identity):
                return False
            journal = await self._journal(item, source.identity)
            found = None if journal is None else journal.found
            if found is None or not found.done:
                display = self._display(item, source)
                exchange = line.exchange(to_wire(item.url))
                job = self.make_job(item, source, journal, exchange, display)
                try:
                    self.say_done(item, source.length, await job.start())
                finally:
                    display.end()
            is_gone: bool = await self.context.run(
                take_away, item.path, state, self.options.move_to
            )
            if journal is not None:
                await journal.remove()
            return is_gone
        finally:
            source.close()
            if journal is not None:
                journal.close()

    async def _journal(self, item: Item, file: FileIdentity) -> Journal | None:
        if self.options.no_state:
            return None
        directory: Path = state_path(self.context, self.options)
        path = directory / name_of(item.url, file.path)
        journal = await self.open_journal(path, item, file)
        # Until the file is away.
        journal.keeps_done = True
        self.warn(item, journal)
        return journal

    def _display(self, item: Item, source: Any) -> Display:
        context, options = self.context, self.options
        if options.json:
            return self.json_display(item, source)
        if options.verbose:
            prefix = f"{printable(item.path)}: "
            return PlainDisplay(
                context.out, context.reactor, verbose=True, prefix=prefix
            )
        return NoDisplay()

    def _complain(self, item: Item, error: Exception) -> None:
        status, words = explain(error, self.options)
        self.context.complain(f"{printable(item.path)}: {words}")
        if self.options.json:
            self.context.say_json(
                event="failed",
                file=item.path,
                exit=int(status),
                error=words,
                **failure_fields(error),
            )

    def _complain_once(self, words: str) -> None:
        if words != self._complaint:
            self._complaint = words
            self.context.complain(words)


def _check(folder: str, move_to: str | None) -> None:
    """
    Check the folders. It blocks.

    :raises UsageError: If they cannot be used.
    """
    for path, what in ((folder, "--watch"), (move_to, "--move-to")):
        if path is not None and not os.path.isdir(path):
            raise UsageError(f"{what}: {printable(path)} is not a directory")
    if move_to is None:
        return
    if os.path.samefile(folder, move_to):
        raise UsageError("--move-to: the same directory as --watch")
    if os.stat(folder).st_dev != os.stat(move_to).st_dev:
        raise UsageError("--move-to: on another file system than --watch")
