"""
The disk backend on a machine whose power fails at each of its system calls.

Each round does the same on a fresh root, and the power fails one call later than in
the round before. For each there is a number of things that the disk may hold then; what
a server finds that is started on it is looked at, and what its clients do next is done.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import tempfile
from math import inf
from random import Random
from typing import Any
from uuid import UUID, uuid4

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.disk.limited import LimitedFiles
from tests.backends.disk.mortal import Killed, roomy
from tests.backends.disk.power import PROMISES, Machine, PowerFiles
from tests.backends.disk.test_crashes import CrashCase
from txbits._workers import Worker
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._syncs import KernelSyncs
from txbits.errors import BackendError, DestinationExists, NoSuchSession
from txbits.interfaces import Answer

_OUTCOMES = 3

#: Some sectors, and not one zero in them.
CONTENT = bytes(number % 255 + 1 for number in range(1700))


@define
class Upload:
    """
    What a client knows of an upload.

    :ivar acknowledged: How many bytes were.
    :ivar is_created: Whether Create-Session was acknowledged.
    :ivar is_closed: Whether Close-Session was.
    """

    session_id: UUID
    destination: tuple[str, ...] = ("name.txt",)
    content: bytes = CONTENT
    acknowledged: int = 0
    is_created: bool = False
    is_closed: bool = False
    overwrite: bool = False
    create_directories: bool = False


def outcome_of(deferred: Deferred[Any]) -> Any:
    """What a Deferred has fired with; a failure is raised."""
    outcomes: list[Any] = []
    deferred.addBoth(outcomes.append)
    if isinstance(outcomes[0], Failure):
        outcomes[0].raiseException()
    return outcomes[0]


class LimitedPowerFiles(LimitedFiles, PowerFiles):
    """The system calls, on a machine whose file system lacks something."""

    def __init__(self, machine: Machine, **lacking: Any):
        PowerFiles.__init__(self, machine)
        self.limit(**lacking)


def without_links(machine: Machine) -> LimitedPowerFiles:
    return LimitedPowerFiles(machine, link=errno.EPERM)


def with_links_that_do_not_show(machine: Machine) -> LimitedPowerFiles:
    return LimitedPowerFiles(machine, has_inodes=False, rename_no_replace=errno.EINVAL)


async def create(backend: DiskBackend, upload: Upload) -> Any:
    """Do what a server does at Create-Session."""
    session = await backend.create(
        upload.session_id,
        upload.destination,
        owner=None,
        content_name=None,
        overwrite=upload.overwrite,
        create_directories=upload.create_directories,
    )
    upload.is_created = True
    return session


async def send(session: Any, upload: Upload, end: int, pieces: int = 2) -> None:
    """Do what a server does at a Fragment that goes on to *end*."""
    writer = await session.open_writer(len(upload.content))
    begin = session.offset
    for number in range(pieces):
        first = begin + (end - begin) * number // pieces
        last = begin + (end - begin) * (number + 1) // pieces
        if first < last:
            await writer.write(upload.content[first:last])
    await writer.close()
    upload.acknowledged = end


async def close(backend: DiskBackend, session: Any, upload: Upload) -> None:
    """Do what a server does at Close-Session."""
    await session.publish(
        overwrite=upload.overwrite, create_directories=upload.create_directories
    )
    await session.release(remember=True)
    upload.is_closed = True


class Checks:
    """What holds after a power failure, whatever the disk kept."""

    fsync: str

    def check(self, backend: DiskBackend, upload: Upload, promise: str) -> None:
        """
        Look at what is there, and have the client go on.

        It does what clients do: it goes on if it can, sends Close-Session again if it
        was the last thing it did, and begins anew if its session is unknown.
        """
        stands = self.look(backend, upload)
        assert stands in (None, b"old", upload.content), stands
        if upload.is_closed:
            assert stands == upload.content
        session = self.found(backend, upload)
        is_kept = self.fsync == "fragment"
        if session is None:
            if outcome_of(self.recalls(backend, upload)):
                self.check_closed(backend, upload)
                return
            assert not upload.is_closed
            # Only where its name was lost does nothing tell that this is its file.
            assert promise == "posix" or stands != upload.content or upload.overwrite
            assert not (is_kept and upload.is_created), "the session is lost"
            self.begin_anew(backend, upload)
            return
        if is_kept and not session.published and not session.releasing:
            assert session.offset >= upload.acknowledged
        if session.releasing:
            outcome_of(session.release())
            return
        if session.published:
            assert stands == upload.content
        else:
            self.check_staged(backend, session, upload)
            if session.offset < len(upload.content):
                assert session.in_doubt or session.offset >= upload.acknowledged
            sending = send(session, upload, len(upload.content))
            outcome_of(Deferred.fromCoroutine(sending))
        try:
            outcome_of(Deferred.fromCoroutine(close(backend, session, upload)))
        except DestinationExists:
            # Nothing but the staged file's name told that this is its own.
            assert promise == "posix"
            assert stands == upload.content
            return
        self.check_closed(backend, upload)

    def check_staged(self, backend: DiskBackend, session: Any, upload: Upload) -> None:
        assert session.total in (None, len(upload.content))
        if session.offset:
            with open(session.address(), "rb") as file:
                assert file.read() == upload.content[: session.offset]

    def check_closed(self, backend: DiskBackend, upload: Upload) -> None:
        assert self.look(backend, upload) == upload.content
        assert outcome_of(self.recalls(backend, upload))
        self.check_gone(backend, upload)

    def check_gone(self, backend: DiskBackend, upload: Upload) -> None:
        name = str(upload.session_id).upper()
        staging = os.path.join(backend.root, ".bits-sessions")
        left = [one for one in os.listdir(staging) if name in one]
        assert not left, left
        assert self.found(backend, upload) is None

    def begin_anew(self, backend: DiskBackend, upload: Upload) -> None:
        other = Upload(
            uuid4(),
            upload.destination,
            upload.content,
            overwrite=upload.overwrite,
            create_directories=upload.create_directories,
        )
        try:
            session = outcome_of(Deferred.fromCoroutine(create(backend, other)))
        except DestinationExists:
            assert self.look(backend, upload) == upload.content
            return
        sending = send(session, other, len(other.content))
        outcome_of(Deferred.fromCoroutine(sending))
        outcome_of(Deferred.fromCoroutine(close(backend, session, other)))
        self.check_closed(backend, other)

    def look(self, backend: DiskBackend, upload: Upload) -> bytes | None:
        try:
            with open(os.path.join(backend.root, *upload.destination), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def found(self, backend: DiskBackend, upload: Upload) -> Any:
        try:
            return outcome_of(backend.find(upload.session_id))
        except NoSuchSession:
            return None

    def recalls(self, backend: DiskBackend, upload: Upload) -> Deferred[bool]:
        return backend.recalls_close(upload.session_id, upload.destination, None)


class PowerCase(Checks, CrashCase):
    """Power failures, in order."""

    promise = "posix"
    make_power: Any = PowerFiles
    #: Before which time a clean-up forgets, so that nothing of what ended is left.
    forgotten = 0.0
    #: Who has the root when the power fails. Then a server without workers starts.
    worker: Any = Worker()
    #: What calls fsync, if that is not done at once.
    sync: Any = None

    def setUp(self) -> None:
        super().setUp()
        self.roots: list[str] = []
        self.addCleanup(self.remove_roots)

    def remove_roots(self) -> None:
        for root in self.roots:
            shutil.rmtree(root, ignore_errors=True)

    def new_root(self) -> str:
        folder = tempfile.mkdtemp(prefix="txbits-", dir=roomy())
        root = os.path.join(folder, "root")
        self.roots.append(folder)
        return root

    def powered(self, root: str | None = None) -> DiskBackend:
        """A started backend on a machine of its own."""
        machine = Machine(root or self.new_root(), self.promise)
        self.addCleanup(machine.close)
        boot = uuid4().hex[:16].encode()
        files: Any = self.make_power(machine)
        fsync: Any = self.fsync
        backend = DiskBackend(
            machine.root.path,
            reactor,
            fsync=fsync,
            in_thread=maybeDeferred,
            sync=self.sync,
            files=files,
            booted=lambda: boot,
            worker=self.worker if root is None else Worker(),
        )
        self.successResultOf(backend.start())
        self.addCleanup(files.die)
        return backend

    def outcomes(self, backend: DiskBackend, calls: int) -> Any:
        """What a server is started on after the power has failed now."""
        files: Any = backend._files
        files.die()
        for number in range(_OUTCOMES):
            root = self.new_root()
            seed = (self.id(), self.promise, calls, number)
            files.machine.after_failure(root, seed)
            again = self.powered(root)
            yield again
            again_files: Any = again._files
            again_files.die()
            again_files.machine.close()
            shutil.rmtree(root)
        files.machine.close()

    def variants(self, *policies: str) -> Any:
        """All promises of file systems, and policies."""
        for self.promise in PROMISES:
            for self.fsync in policies or ("close", "fragment"):
                self.survived = False
                yield

    def act(self, backend: DiskBackend, calls: int, work: Any) -> None:
        """Do something, and die after so many calls."""
        files: Any = backend._files
        files.die_after(calls)
        outcomes: list[Any] = []
        doing = Deferred.fromCoroutine(work).addBoth(outcomes.append)
        self.survived = not files._dead
        self.acknowledged = outcomes == [None]
        if self.survived:
            files._calls_left = None
            self.assertEqual(outcomes, [None])
        else:
            # It may have died in what nobody waits for, or for ever.
            doing.cancel()
            del doing, outcomes
            gc.collect()
            self.flushLoggedErrors(Killed)

    def prepared(self, held: int | None = None, **about: Any) -> Any:
        """A backend, an upload, and its session with so many bytes."""
        backend = self.powered()
        upload = Upload(uuid4(), **about)
        session = outcome_of(Deferred.fromCoroutine(create(backend, upload)))
        if held is not None:
            outcome_of(Deferred.fromCoroutine(send(session, upload, held)))
        return backend, upload, session


class UploadPowerTests(PowerCase):
    """The power fails while a session is made, and while bytes come."""

    def test_bytes_that_were_not_stored_do_not_count(self) -> None:
        for _ in self.variants():
            for calls in self.rounds():
                backend = self.powered()
                upload = Upload(backend.new_id())

                async def work(
                    backend: DiskBackend = backend, upload: Upload = upload
                ) -> None:
                    session = await create(backend, upload)
                    for end in (600, 1100, len(CONTENT)):
                        await send(session, upload, end)

                self.act(backend, calls, work())
                for again in self.outcomes(backend, calls):
                    self.check(again, Upload(**_known(upload)), self.promise)

    def test_names_that_are_too_long_for_a_line_make_no_difference(self) -> None:
        destination = ("d" * 200, "e" * 200, "f" * 200)
        for _ in self.variants():
            for calls in self.rounds():
                backend, upload, session = self.prepared(
                    600, destination=destination, create_directories=True
                )

                async def work(
                    backend: DiskBackend = backend,
                    upload: Upload = upload,
                    session: Any = session,
                ) -> None:
                    await send(session, upload, len(CONTENT))
                    await close(backend, session, upload)

                self.act(backend, calls, work())
                for again in self.outcomes(backend, calls):
                    self.check(again, Upload(**_known(upload)), self.promise)

    def test_what_counts_is_as_true_after_the_next_failure(self) -> None:
        """A session that was settled, and went on, and met with another."""
        for _ in self.variants():
            for calls in self.rounds():
                backend, upload, _ = self.prepared(600)
                for again in self.outcomes(backend, -1):
                    known = Upload(**_known(upload))
                    session = self.found(again, known)
                    if session is None:
                        self.assertEqual(self.fsync, "close")
                        continue
                    sending = send(session, known, 1100)
                    self.act(again, calls, sending)
                    root = self.new_root()
                    files: Any = again._files
                    files.machine.after_failure(root, (self.id(), calls))
                    last = self.powered(root)
                    # The first one's loss was told; what came since counts.
                    if self.fsync == "close":
                        known.acknowledged = 0
                    self.check(last, known, self.promise)
                    last_files: Any = last._files
                    last_files.die()
                    last_files.machine.close()

    def test_a_staged_file_that_was_given_up_does_not_come_back(self) -> None:
        """What the record says is true of the file that took its place."""
        for _ in self.variants():
            for number in range(8):
                backend, upload, session = self.prepared()
                files, staging = backend._files, backend._staging
                # All of it gets to the disk, except for the bytes and the total.
                fd = files.open(
                    session.part(),
                    os.O_RDWR | os.O_CREAT,
                    0o600,
                    dir_fd=staging.directory,
                )
                files.pwrite(fd, bytes(len(CONTENT)), 0)
                for one in (fd, staging.directory, staging.table.fd):
                    files.fsync(one)
                files.close(fd)
                for again in self.outcomes(backend, number):
                    known = Upload(**_known(upload))
                    session = self.found(again, known)
                    sending = send(session, known, len(CONTENT))
                    outcome_of(Deferred.fromCoroutine(sending))
                    outcome_of(again._staging.sync_table())
                    for last in self.outcomes(again, number):
                        self.check(last, Upload(**_known(known)), self.promise)


class WorkerPowerTests(PowerCase):
    """The power fails while a worker has sessions in a slot of its own."""

    worker = Worker(1, 2)

    def test_session_is_found_by_the_server_that_takes_over(self) -> None:
        for _ in self.variants():
            for calls in self.rounds():
                backend = self.powered()
                upload = Upload(backend.new_id())

                async def work(
                    backend: DiskBackend = backend, upload: Upload = upload
                ) -> None:
                    session = await create(backend, upload)
                    await send(session, upload, len(CONTENT))
                    await close(backend, session, upload)

                self.act(backend, calls, work())
                for again in self.outcomes(backend, calls):
                    self.check(again, Upload(**_known(upload)), self.promise)


class ClosePowerTests(PowerCase):
    """The power fails while a session is closed."""

    def closed(self, **about: Any) -> None:
        for _ in self.variants():
            for calls in self.rounds():
                backend, upload, session = self.prepared(len(CONTENT), **about)
                self.act(backend, calls, close(backend, session, upload))
                for again in self.outcomes(backend, calls):
                    self.check(again, Upload(**_known(upload)), self.promise)

    def test_a_close_is_done_or_can_be_done_again(self) -> None:
        self.closed()

    def test_replacing_a_file_is_done_or_can_be_done_again(self) -> None:
        self.closed(overwrite=True)

    def test_so_is_one_in_directories_that_are_made(self) -> None:
        self.closed(destination=("a", "b", "name.txt"), create_directories=True)

    def test_directories_that_others_have_just_made_are_safe_as_well(self) -> None:
        for _ in self.variants():
            for overwrite in (False, True):
                backend = self.powered()
                backend._files.mkdir("made", dir_fd=backend._staging.tree.fd)
                upload = Upload(uuid4(), ("made", "name.txt"), overwrite=overwrite)
                session = outcome_of(Deferred.fromCoroutine(create(backend, upload)))
                sending = send(session, upload, len(CONTENT))
                outcome_of(Deferred.fromCoroutine(sending))
                closing = close(backend, session, upload)
                outcome_of(Deferred.fromCoroutine(closing))
                for again in self.outcomes(backend, int(overwrite)):
                    self.check(again, Upload(**_known(upload)), self.promise)

    def test_what_stood_there_before_stands_or_the_new_file_does(self) -> None:
        for _ in self.variants():
            for calls in self.rounds():
                root = self.new_root()
                os.mkdir(root)
                with open(os.path.join(root, "name.txt"), "wb") as file:
                    file.write(b"old")
                backend = self.powered(root)
                upload = Upload(uuid4(), overwrite=True)
                session = outcome_of(Deferred.fromCoroutine(create(backend, upload)))
                sending = send(session, upload, len(CONTENT))
                outcome_of(Deferred.fromCoroutine(sending))
                self.act(backend, calls, close(backend, session, upload))
                for again in self.outcomes(backend, calls):
                    self.assertIsNotNone(self.look(again, upload))
                    self.check(again, Upload(**_known(upload)), self.promise)

    def test_an_old_file_of_the_same_length_is_not_taken_for_the_new_one(self) -> None:
        old = bytes(len(CONTENT))
        for _ in self.variants():
            for calls in self.rounds():
                root = self.new_root()
                os.mkdir(root)
                with open(os.path.join(root, "name.txt"), "wb") as file:
                    file.write(old)
                backend = self.powered(root)
                upload = Upload(uuid4(), overwrite=True)
                session = outcome_of(Deferred.fromCoroutine(create(backend, upload)))
                sending = send(session, upload, len(CONTENT))
                outcome_of(Deferred.fromCoroutine(sending))
                self.act(backend, calls, close(backend, session, upload))
                for again in self.outcomes(backend, calls):
                    found = self.found(again, upload)
                    if found is not None and found.published:
                        self.assertEqual(self.look(again, upload), CONTENT)

    def test_a_close_is_remembered_when_its_line_is_used_again(self) -> None:
        """And as long as it is not, by the line."""
        for _ in self.variants():
            for calls in self.rounds():
                backend, upload, session = self.prepared(len(CONTENT))
                closing = close(backend, session, upload)
                outcome_of(Deferred.fromCoroutine(closing))
                other = Upload(uuid4(), destination=("other",))

                async def work(
                    backend: DiskBackend = backend, other: Upload = other
                ) -> None:
                    await backend._staging.close_memory.settle()
                    session = await create(backend, other)
                    await send(session, other, len(CONTENT))
                    await close(backend, session, other)

                self.act(backend, calls, work())
                for again in self.outcomes(backend, calls):
                    self.check(again, Upload(**_known(upload)), self.promise)
                    self.assertTrue(upload.is_closed)
                    self.check(again, Upload(**_known(other)), self.promise)

    def test_remembered_closes_outlive_the_clean_up_of_others(self) -> None:
        for _ in self.variants():
            for calls in self.rounds():
                backend, upload, session = self.prepared(len(CONTENT))
                closing = close(backend, session, upload)
                outcome_of(Deferred.fromCoroutine(closing))
                staging = backend._staging
                # One that is forgotten, so that the file is written anew.
                staging.closes.remember(uuid4(), ("a",), None, 1.0)
                self.act(backend, calls, _clean_up(backend))
                for again in self.outcomes(backend, calls):
                    self.check(again, Upload(**_known(upload)), self.promise)

    def test_a_release_is_done_or_goes_on(self) -> None:
        for held in (None, 600, len(CONTENT)):
            for _ in self.variants():
                for calls in self.rounds():
                    backend, upload, session = self.prepared(held)

                    async def work(session: Any = session) -> None:
                        await session.release()

                    self.act(backend, calls, work())
                    for again in self.outcomes(backend, calls):
                        found = self.found(again, upload)
                        if found is not None:
                            if not found.releasing:
                                self.check_staged(again, found, upload)
                            outcome_of(found.release())
                        outcome_of(again.clean_up(self.forgotten))
                        self.check_gone(again, upload)


class ReplacedPowerTests(PowerCase):
    """The power fails while a session is closed whose file others then replace."""

    NEWER = Upload(uuid4(), content=CONTENT[1:], overwrite=True)

    def test_a_close_is_remembered_whatever_stands_there_since(self) -> None:
        for overwrite in (False, True):
            for _ in self.variants("fragment"):
                for calls in self.rounds():
                    backend, upload, session = self.prepared(
                        len(CONTENT), overwrite=overwrite
                    )
                    self.act(backend, calls, close(backend, session, upload))
                    for again in self.outcomes(backend, calls):
                        known = Upload(**_known(upload))
                        self.replace(again)
                        is_published = self.check_replaced(again, known)
                        for last in self.outcomes(again, calls):
                            is_still = self.check_replaced(
                                last, Upload(**_known(known))
                            )
                            self.assertGreaterEqual(is_still, is_published)

    def replace(self, backend: DiskBackend) -> None:
        newer = Upload(**_known(self.NEWER))
        session = outcome_of(Deferred.fromCoroutine(create(backend, newer)))
        sending = send(session, newer, len(newer.content))
        outcome_of(Deferred.fromCoroutine(sending))
        outcome_of(Deferred.fromCoroutine(close(backend, session, newer)))

    def check_replaced(self, backend: DiskBackend, upload: Upload) -> bool:
        """
        Look at the session, and repeat its Close if that is answered at once.

        :returns: Whether it is.
        """
        self.assertEqual(self.look(backend, upload), self.NEWER.content)
        session = self.found(backend, upload)
        if session is None:
            self.assertTrue(outcome_of(self.recalls(backend, upload)))
        elif session.published:
            outcome_of(session.release(remember=True))
        else:
            self.assertFalse(upload.is_closed)
            self.assertEqual(session.offset, upload.acknowledged)
            return False
        upload.is_closed = True
        self.assertTrue(outcome_of(self.recalls(backend, upload)))
        self.check_gone(backend, upload)
        return True


class LateSync:
    """An fsync of :class:`LateKernel`."""

    def __init__(self, fd: int):
        self.fd = fd

    def set_callback(self, completed: Any) -> None:
        self.completed = completed


class LateKernel:
    """
    Syncs what is there when an fsync begins, and tells that later, in any order.

    :ivar syncs: What the backend is given.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.under_way: list[LateSync] = []
        refused = BackendError("the kernel accepts everything")
        self.syncs = KernelSyncs(self.clock, lambda fd: fail(refused), self, LateSync)

    def submit(self, *operations: LateSync) -> int:
        for one in operations:
            self.fsync(one.fd)
        self.under_way += operations
        return len(operations)

    def fsync(self, fd: int) -> None:
        self.files.fsync(fd)

    def end_turn(self) -> None:
        self.clock.advance(0)

    def complete(self, random: Random) -> None:
        if self.under_way:
            random.shuffle(self.under_way)
            self.under_way.pop().completed(0)


class SharedPowerTests(PowerCase):
    """The power fails while sessions that share fsyncs live at the same time."""

    def test_nobody_shares_an_fsync_that_began_too_early(self) -> None:
        for _ in self.variants():
            for seed in range(10):
                random = Random(seed)
                kernel = LateKernel()
                self.sync = kernel.syncs
                backend = self.powered()
                self.sync = None
                kernel.files = backend._files
                uploads = [
                    Upload(
                        uuid4(),
                        destination,
                        overwrite=random.random() < 0.5,
                        create_directories=True,
                    )
                    for destination in (
                        *(("a", "1"), ("a", "2"), ("a", "3")),
                        *(("b", "1"), ("1",), ("2",), ("3",)),
                    )
                ]
                lives = self.lived(backend, uploads, kernel, random)
                # With this number, closed ones and others are among them.
                self.assertTrue(any(one.is_closed for one in uploads))
                for again in self.outcomes(backend, seed):
                    for upload in uploads:
                        known = Upload(**_known(upload))
                        if known.is_created:
                            self.check(again, known, self.promise)
                for life in lives:
                    life.cancel()
                del lives
                gc.collect()
                self.flushLoggedErrors(Killed)

    def lived(
        self, backend: Any, uploads: list[Upload], kernel: Any, random: Random
    ) -> list[Deferred[None]]:
        """Let uploads go on side by side for a while."""
        lives = []
        waiting = uploads.copy()
        for _ in range(90):
            step = random.randrange(4)
            if step == 0 and waiting:
                life = self.life(backend, waiting.pop())
                lives.append(Deferred.fromCoroutine(life).addErrback(self.killed))
            elif step == 1:
                kernel.end_turn()
            else:
                kernel.complete(random)
        return lives

    async def life(self, backend: DiskBackend, upload: Upload) -> None:
        session = await create(backend, upload)
        await send(session, upload, len(upload.content))
        await close(backend, session, upload)

    def killed(self, failure: Failure) -> None:
        failure.trap(Killed, CancelledError)


class RenamingPowerTests(ClosePowerTests):
    """The same on a file system without hard links."""

    make_power = staticmethod(without_links)


class ComparingPowerTests(ClosePowerTests):
    """The same where links do not show, and rename knows no flags."""

    make_power = staticmethod(with_links_that_do_not_show)
    # Until then a staged file may be all that tells of a close.
    forgotten = inf


class AnswerPowerTests(PowerCase):
    """The power fails while a server application answers."""

    def test_an_answer_is_there_with_its_whole_reply_or_not_at_all(self) -> None:
        for _ in self.variants():
            for calls in self.rounds():
                backend, upload, session = self.prepared(len(CONTENT))

                async def work(session: Any = session) -> None:
                    await session.begin_attempt()
                    writer = await session.open_reply()
                    await writer.write(CONTENT)
                    await writer.close()
                    await session.keep_answer(Answer(publishes=True))

                self.act(backend, calls, work())
                for again in self.outcomes(backend, calls):
                    self.check_answer(again, upload)

    def check_answer(self, backend: DiskBackend, upload: Upload) -> None:
        found = self.found(backend, upload)
        if found is None:
            assert self.fsync == "close"
            outcome_of(backend.clean_up(0.0))
            self.check_gone(backend, upload)
            return
        assert found.attempts in (0, 1)
        if found.answer is not None:
            assert found.answer == Answer(publishes=True, has_reply=True)
            with open(found.reply_address(), "rb") as file:
                assert file.read() == CONTENT
        else:
            # What was asked may be asked again, if nobody was told.
            assert not self.acknowledged
            outcome_of(found.begin_attempt())
            assert not outcome_of(found.has_reply())
        outcome_of(found.release())
        self.check_gone(backend, upload)


async def _clean_up(backend: DiskBackend) -> None:
    await backend.clean_up(2.0)


def _known(upload: Upload) -> dict[str, Any]:
    return {name: getattr(upload, name) for name in Upload.__slots__ if name[0] != "_"}


class PowerMachine(Checks, RuleBasedStateMachine):
    """Some uploads, on a machine that loses its power now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="txbits-", dir=roomy())
        self.number = 0
        self.uploads: list[Upload] = []
        self.sessions: dict[UUID, Any] = {}
        # Whose clients have not come back since the last failure, and whether their
        # sessions were open.
        self.absent: dict[UUID, bool] = {}
        # What stands at each destination.
        self.standing: dict[tuple[str, ...], bytes | None] = {}
        self.promise = "posix"
        self.fsync = "close"
        self.backend: Any = None

    @precondition(lambda self: self.backend is None)
    @rule(
        promise=st.sampled_from(PROMISES), fsync=st.sampled_from(("close", "fragment"))
    )
    def begin(self, promise: str, fsync: str) -> None:
        self.promise, self.fsync = promise, fsync
        root = os.path.join(self.folder, "root")
        self.start(Machine(root, self.promise), b"%016x" % self.number)

    def start(self, machine: Machine, boot: bytes) -> None:
        files: Any = PowerFiles(machine)
        fsync: Any = self.fsync
        self.backend = DiskBackend(
            machine.root.path,
            reactor,
            fsync=fsync,
            in_thread=maybeDeferred,
            files=files,
            booted=lambda: boot,
        )
        self.boot = boot
        outcome_of(self.backend.start())

    def run_now(self, work: Any) -> Any:
        return outcome_of(Deferred.fromCoroutine(work))

    def under_way(self, number: int) -> Upload | None:
        ids = [one for one in self.uploads if one.session_id in self.sessions]
        return ids[number % len(ids)] if ids else None

    @precondition(lambda self: self.backend is not None and len(self.uploads) < 12)
    @rule(
        name=st.sampled_from("abc"),
        overwrite=st.booleans(),
        length=st.integers(0, 1700),
    )
    def create_session(self, name: str, overwrite: bool, length: int) -> None:
        number = len(self.uploads)
        # Contents differ in each byte.
        content = bytes((one + 17 * number) % 255 + 1 for one in range(length))
        upload = Upload(uuid4(), (name,), content, overwrite=overwrite)
        try:
            session = self.run_now(create(self.backend, upload))
        except DestinationExists:
            return
        self.uploads.append(upload)
        self.standing.setdefault(upload.destination, None)
        self.sessions[upload.session_id] = session

    @precondition(lambda self: self.sessions)
    @rule(number=st.integers(0, 11), share=st.floats(0, 1))
    def send_some(self, number: int, share: float) -> None:
        upload = self.under_way(number)
        assert upload is not None
        session = self.sessions[upload.session_id]
        if session.published:
            return
        left = len(upload.content) - session.offset
        self.run_now(send(session, upload, session.offset + int(left * share)))

    @precondition(lambda self: self.sessions)
    @rule(number=st.integers(0, 11))
    def send_all_and_close(self, number: int) -> None:
        upload = self.under_way(number)
        assert upload is not None
        session = self.sessions[upload.session_id]
        is_new = not session.published
        if is_new:
            self.run_now(send(session, upload, len(upload.content)))
        try:
            self.run_now(close(self.backend, session, upload))
        except DestinationExists:
            assert not upload.overwrite
            return
        del self.sessions[upload.session_id]
        if is_new:
            self.standing[upload.destination] = upload.content
        assert self.look(self.backend, upload) == self.standing[upload.destination]
        assert outcome_of(self.recalls(self.backend, upload))
        self.check_gone(self.backend, upload)

    @precondition(lambda self: self.sessions)
    @rule(
        number=st.integers(0, 11),
        calls=st.integers(0, 25),
        seed=st.integers(0, 999),
        are_absent=st.booleans(),
    )
    def the_power_fails_while_one_closes(
        self, number: int, calls: int, seed: int, are_absent: bool
    ) -> None:
        upload = self.under_way(number)
        assert upload is not None
        session = self.sessions[upload.session_id]
        is_new = not session.published

        async def work() -> None:
            if not session.published:
                await send(session, upload, len(upload.content))
            await close(self.backend, session, upload)

        self.backend._files.die_after(calls)
        outcomes: list[Any] = []
        Deferred.fromCoroutine(work()).addBoth(outcomes.append)
        self.fail_power(seed, are_absent, upload if is_new else None)

    @precondition(lambda self: self.backend is not None)
    @rule(seed=st.integers(0, 999), are_absent=st.booleans())
    def the_power_fails(self, seed: int, are_absent: bool) -> None:
        self.fail_power(seed, are_absent)

    @precondition(lambda self: self.absent)
    @rule()
    def the_clients_come_back(self) -> None:
        absent, self.absent = self.absent, {}
        for upload in self.uploads:
            if upload.session_id not in absent:
                continue
            found = self.found(self.backend, upload)
            if upload.is_closed:
                self.look_at_closed(upload, found)
            elif absent[upload.session_id]:
                self.look_at_open(upload, found)

    @precondition(lambda self: self.backend is not None)
    @rule(is_orderly=st.booleans())
    def the_server_is_restarted(self, is_orderly: bool) -> None:
        if is_orderly:
            outcome_of(self.backend.stop())
        self.backend._files.die()
        self.start(self.backend._files.machine, self.boot)
        for session_id, session in list(self.sessions.items()):
            found = outcome_of(self.backend.find(session_id))
            assert found.offset == session.offset
            self.sessions[session_id] = found

    @precondition(lambda self: self.backend is not None)
    @rule()
    def clean_up(self) -> None:
        outcome_of(self.backend.clean_up(0.0))

    def fail_power(
        self, seed: int, are_absent: bool, closing: Upload | None = None
    ) -> None:
        files = self.backend._files
        files.die()
        self.number += 1
        root = os.path.join(self.folder, f"root-{self.number}")
        files.machine.after_failure(root, seed)
        files.machine.close()
        self.start(Machine(root, self.promise), b"%016x" % self.number)
        for destination, before in self.standing.items():
            allowed = [before]
            if closing is not None and closing.destination == destination:
                allowed = [closing.content]
                if not closing.is_closed:
                    allowed.append(before)
            stands = self.look(self.backend, Upload(uuid4(), destination))
            assert stands in allowed
            self.standing[destination] = stands
        sessions, self.sessions = self.sessions, {}
        for upload in self.uploads:
            session_id = upload.session_id
            is_open = session_id in sessions or self.absent.get(session_id, False)
            self.absent[session_id] = is_open
        if not are_absent:
            self.the_clients_come_back()

    def look_at_closed(self, upload: Upload, found: Any) -> None:
        if found is not None:
            # What a clean-up does, and the client's next Close.
            assert found.published or found.releasing
            outcome_of(found.release(remember=True))
        assert outcome_of(self.recalls(self.backend, upload))
        self.check_gone(self.backend, upload)

    def look_at_open(self, upload: Upload, found: Any) -> None:
        is_kept = self.fsync == "fragment"
        if found is None:
            if outcome_of(self.recalls(self.backend, upload)):
                assert self.standing[upload.destination] is not None
                upload.is_closed = True
            else:
                assert not is_kept
            return
        if found.releasing:
            return
        if found.published:
            assert self.standing[upload.destination] is not None
        else:
            self.check_staged(self.backend, found, upload)
            if is_kept:
                assert found.offset >= upload.acknowledged
        upload.acknowledged = found.offset
        self.sessions[upload.session_id] = found

    def teardown(self) -> None:
        if self.backend is not None:
            self.backend._files.die()
            self.backend._files.machine.close()
        shutil.rmtree(self.folder)


class RandomPowerTests(SynchronousTestCase):
    """The machine, run by trial."""

    def test_whatever_happens_nothing_wrong_is_believed(self) -> None:
        case = PowerMachine.TestCase()
        case.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
        case.runTest()  # type: ignore[no-untyped-call]
        # What was left by the dead.
        gc.collect()
        self.flushLoggedErrors(Killed)


class MachineTests(SynchronousTestCase):
    """The machine itself."""

    def setUp(self) -> None:
        self.count = 0

    def outcomes(self, promise: str, sync: Any) -> set[Any]:
        """What the disk may have of two files, the second written in two steps."""
        found = set()
        for seed in range(300):
            top = tempfile.mkdtemp(prefix="txbits-", dir=roomy())
            machine = Machine(os.path.join(top, "root"), promise)
            files: Any = PowerFiles(machine)
            directory = os.open(machine.root.path, os.O_RDONLY)
            fds = []
            for name in ("one", "two"):
                fd = files.open(name, os.O_RDWR | os.O_CREAT, 0o600, dir_fd=directory)
                fds.append(fd)
            files.pwrite(fds[1], b"1" * 600, 0)
            for one in sync:
                files.fsync({"two": fds[1], "directory": directory}[one])
            files.pwrite(fds[1], b"2" * 600, 600)
            machine.after_failure(os.path.join(top, "after"), seed)
            found.add(
                tuple(
                    _content(os.path.join(top, "after", name))
                    for name in ("one", "two")
                )
            )
            files.die()
            machine.close()
            os.close(directory)
            shutil.rmtree(top)
        return found

    def test_what_was_synced_is_there(self) -> None:
        for one, two in self.outcomes("posix", ["two", "directory"]):
            self.assertEqual(one, b"")
            self.assertTrue(two is not None and two.startswith(b"1" * 600))

    def test_what_was_not_is_there_or_is_not_or_is_zeros(self) -> None:
        found = self.outcomes("posix", ["two", "directory"])
        ends = {two[600:] for _, two in found if two is not None}
        self.assertLessEqual({b"", b"2" * 600, bytes(600)}, ends)
        self.assertIn(b"2" * 424 + bytes(176), ends)

    def test_names_come_each_on_its_own(self) -> None:
        found = self.outcomes("posix", ["two"])
        there = {(one is not None, two is not None) for one, two in found}
        self.assertEqual(len(there), 4)

    def test_a_journal_has_them_in_order(self) -> None:
        found = self.outcomes("journal", [])
        there = {(one is not None, two is not None) for one, two in found}
        self.assertEqual(there, {(False, False), (True, False), (True, True)})
        found = self.outcomes("journal", ["two"])
        there = {(one is not None, two is not None) for one, two in found}
        self.assertEqual(there, {(True, True)})


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
