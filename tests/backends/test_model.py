"""
Backends against a model: whatever the order of calls, they hold what they were given.

hypothesis makes up lives of a session: appends of any length, kills and restarts,
publishing with and without overwriting, foreign files, releases. The model is a
bytes object and two flags.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from typing import Any
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.disk.mortal import OnDisk, roomy
from txbits.backends.memory import MemoryBackend
from txbits.errors import BackendError, DestinationExists, NoSuchSession

_TOTAL = 40
_SOURCE = bytes(range(_TOTAL))
_NAME = ("name.txt",)
_ID = UUID(int=1)


def now(deferred):
    """What a Deferred has fired with; a failure is raised."""
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


class SessionMachine(RuleBasedStateMachine):
    """One session in memory."""

    def __init__(self):
        super().__init__()
        self.begin()
        self.session: Any = None
        self.there = None

    def begin(self):
        clock = Clock()
        clock.advance(time.time())
        self.backend: Any = MemoryBackend(clock)

    def kill(self):
        """Nothing outlives the process here, so none is killed."""

    def look(self):
        return self.backend.files.get(_NAME)

    def put(self, data):
        self.backend.files[_NAME] = data

    @precondition(lambda self: self.session is None)
    @rule(overwrite=st.booleans())
    def create(self, overwrite):
        made = self.backend.create(
            _ID,
            _NAME,
            owner=None,
            content_name=None,
            overwrite=overwrite,
            create_directories=False,
        )
        if self.there is not None and not overwrite:
            try:
                now(made)
            except DestinationExists:
                return
            raise AssertionError("it took a destination that exists")
        self.session = now(made)
        self.total, self.held, self.is_published = None, 0, False

    @precondition(lambda self: self.session is not None and not self.is_published)
    @rule(lengths=st.lists(st.integers(1, 15), max_size=3))
    def append(self, lengths):
        writer = now(self.session.open_writer(_TOTAL))
        self.total = _TOTAL
        for length in lengths:
            piece = _SOURCE[self.held : self.held + length]
            if piece:
                now(writer.write(piece))
                self.held += len(piece)
        now(writer.close())

    @precondition(lambda self: self.session is not None)
    @rule(overwrite=st.booleans())
    def publish(self, overwrite):
        publishing = self.session.publish(overwrite=overwrite, create_directories=False)
        if self.is_published:
            now(publishing)
        elif self.held < _TOTAL:
            try:
                now(publishing)
            except BackendError:
                return
            raise AssertionError("it published a part")
        elif self.there is not None and not overwrite:
            try:
                now(publishing)
            except DestinationExists:
                return
            raise AssertionError("it replaced a file")
        else:
            now(publishing)
            self.is_published = True
            self.there = _SOURCE

    @rule(data=st.sampled_from([b"", b"theirs"]))
    def foreign_file(self, data):
        self.put(data)
        self.there = data

    @precondition(lambda self: self.session is not None)
    @rule()
    def release(self):
        now(self.session.release())
        self.session = None

    @rule()
    def restart(self):
        self.kill()
        if self.session is not None:
            self.session = now(self.backend.find(_ID))

    @rule()
    def clean_up(self):
        now(self.backend.clean_up(0.0))

    @invariant()
    def the_destination_is_as_expected(self):
        assert self.look() == self.there

    @invariant()
    def the_session_is_as_expected(self):
        if self.session is None:
            try:
                now(self.backend.find(_ID))
            except NoSuchSession:
                return
            raise AssertionError("a released session is found")
        assert self.session.offset == self.held
        assert self.session.total == self.total
        assert self.session.published == self.is_published
        found = now(self.backend.find(_ID))
        assert (found.offset, found.total) == (self.held, self.total)
        assert found.published == self.is_published


class DiskMachine(OnDisk, SessionMachine):
    """One session on disk, with kills."""

    def begin(self):
        self.backend = self.disk(tempfile.mkdtemp(prefix="txbits-", dir=roomy()))
        now(self.backend.start())

    def kill(self):
        self.backend = self.reopen_backend(self.backend)
        now(self.backend.start())

    def look(self):
        return self.published(self.backend, _NAME)

    def put(self, data):
        # As others replace files: the old one may be the staged file's other name.
        self.place(self.backend, ("new",), data)
        shutil.move(f"{self.backend.root}/new", f"{self.backend.root}/name.txt")

    def teardown(self):
        now(self.backend.stop())
        shutil.rmtree(self.backend.root)


_SETTINGS = settings(max_examples=60, stateful_step_count=25, deadline=None)


class ModelTests(SynchronousTestCase):
    """The machines, run by trial."""

    def run_machine(self, machine):
        case = machine.TestCase()
        case.settings = _SETTINGS
        case.runTest()

    def test_memory_agrees_with_the_model(self):
        self.run_machine(SessionMachine)

    def test_disk_agrees_with_the_model(self):
        self.run_machine(DiskMachine)
