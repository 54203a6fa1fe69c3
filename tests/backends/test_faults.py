"""
The backend whose work can be held: it keeps the contract, and its gates hold.
"""

from __future__ import annotations

import time
from uuid import uuid4

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import txbits.testing
from tests.backends.disk.mortal import OnDisk
from txbits.backends.memory import MemoryBackend
from txbits.errors import BackendError, NoSuchSession
from txbits.interfaces import (
    IAbilities,
    IAddressable,
    IAnswerable,
    IClaimable,
    IDownloadable,
    IEagerWriter,
    IPaged,
    IPartitioned,
    IReadable,
    ISorted,
)
from txbits.testing import BackendContract, HoldableBackend


class HoldableMemoryTests(BackendContract, SynchronousTestCase):
    """The contract, when nothing is held, over memory."""

    abilities = frozenset(
        {IAbilities, IAnswerable, IClaimable, IDownloadable, IReadable}
    )
    has_directories = False

    def make_backend(self):
        clock = Clock()
        clock.advance(time.time())
        return HoldableBackend(MemoryBackend(clock))

    def reopen_backend(self, backend):
        return None

    def published(self, backend, destination):
        return backend.backend.files.get(destination)

    def place(self, backend, destination, data):
        backend.backend.files[destination] = data

    def leftovers(self, backend):
        return [str(one) for one in backend.backend._sessions]


class HoldableDiskTests(OnDisk, BackendContract, SynchronousTestCase):
    """The contract, when nothing is held, over disk."""

    abilities = OnDisk.abilities - {IEagerWriter, IPaged, IPartitioned, ISorted}

    def make_backend(self):
        return HoldableBackend(super().make_backend())

    def reopen_backend(self, backend):
        return HoldableBackend(super().reopen_backend(backend.backend))

    def published(self, backend, destination):
        return super().published(backend.backend, destination)

    def place(self, backend, destination, data):
        super().place(backend.backend, destination, data)

    def leftovers(self, backend):
        return super().leftovers(backend.backend)


class GateTests(SynchronousTestCase):
    """Held, let go, failed."""

    def setUp(self):
        self.memory = MemoryBackend(Clock())
        self.backend = HoldableBackend(self.memory)

    def new(self):
        return self.backend.create(
            uuid4(),
            ("name.txt",),
            owner=None,
            content_name=None,
            overwrite=True,
            create_directories=False,
        )

    def test_they_are_exported(self):
        for name in ("BackendContract", "Gate", "HoldableBackend"):
            self.assertIn(name, txbits.testing.__all__)

    def test_a_held_release_has_released_nothing(self):
        session = self.successResultOf(self.new())
        gate = self.backend.hold("release")
        first, second = session.release(), session.release()
        self.assertEqual(gate.waiting, 2)
        self.assertNoResult(first)
        self.assertTrue(session.releasing)
        self.assertEqual(len(self.memory._sessions), 1)
        gate.open()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(gate.waiting, 0)
        self.assertEqual(self.memory._sessions, {})

    def test_an_open_gate_lets_later_calls_pass(self):
        self.backend.hold("release").open()
        self.successResultOf(self.successResultOf(self.new()).release())

    def test_a_failing_gate_fails_all_until_it_is_opened(self):
        session = self.successResultOf(self.new())
        gate = self.backend.hold("release")
        held = session.release()
        gate.fail(BackendError("on purpose"))
        self.failureResultOf(held, BackendError)
        self.failureResultOf(session.release(), BackendError)
        self.assertEqual(len(self.memory._sessions), 1)
        gate.open()
        self.successResultOf(session.release())

    def test_a_gate_is_shut_again(self):
        gate = self.backend.hold("create")
        gate.open()
        self.successResultOf(self.new())
        self.assertIs(self.backend.hold("create"), gate)
        held = self.new()
        self.assertNoResult(held)
        gate.open()
        self.successResultOf(held)

    def test_one_who_gives_up_no_longer_waits(self):
        gate = self.backend.hold("find")
        held = self.backend.find(uuid4())
        held.cancel()
        self.failureResultOf(held)
        self.assertEqual(gate.waiting, 0)
        gate.open()
        self.failureResultOf(self.backend.find(uuid4()), NoSuchSession)

    def test_every_operation_can_be_held(self):
        session = self.successResultOf(self.new())
        writer = self.successResultOf(session.open_writer(1))
        one = uuid4()
        for operation, call in {
            "write": lambda: writer.write(b"a"),
            "close": writer.close,
            "open_writer": lambda: session.open_writer(1),
            "publish": lambda: session.publish(
                overwrite=True, create_directories=False
            ),
            "release": session.release,
            "create": self.new,
            "find": lambda: self.backend.find(session.session_id),
            "sessions": self.backend.sessions,
            "recalls_close": lambda: self.backend.recalls_close(one, ("a",), None),
            "clean_up": lambda: self.backend.clean_up(0.0),
        }.items():
            gate = self.backend.hold(operation)
            held = call()
            self.assertNoResult(held)
            self.assertEqual(gate.waiting, 1)
            gate.fail(BackendError(operation))
            self.failureResultOf(held, BackendError)
            gate.open()

    def test_a_release_that_failed_is_remembered(self):
        session = self.successResultOf(self.new())
        self.backend.hold("release").fail(BackendError("held"))
        self.failureResultOf(session.release(), BackendError)
        found = self.successResultOf(self.backend.find(session.session_id))
        (summary,) = self.successResultOf(self.backend.sessions())
        self.assertTrue(found.releasing and summary.releasing)

    def test_one_that_remembers_has_not_begun_when_it_fails(self):
        session = self.successResultOf(self.new())
        gate = self.backend.hold("release")
        gate.fail(BackendError("held"))
        self.failureResultOf(session.release(remember=True), BackendError)
        self.assertFalse(session.releasing)
        close = session.session_id, session.destination, session.owner
        self.assertFalse(self.successResultOf(self.memory.recalls_close(*close)))
        gate.open()
        self.successResultOf(session.release(remember=True))
        self.assertTrue(self.successResultOf(self.memory.recalls_close(*close)))

    def test_nothing_else_can_be_held(self):
        with self.assertRaisesRegex(ValueError, "'relese' is none of"):
            self.backend.hold("relese")

    def test_sessions_can_do_what_the_other_backend_s_can(self):
        session = self.successResultOf(self.new())
        self.assertTrue(IReadable.providedBy(session))
        self.assertFalse(IAddressable.providedBy(session))
