"""
Starts of any number of workers on one root, against a model.

hypothesis makes up what happens: sessions of any worker, kills of one or all of them,
reboots, clean-ups, and starts with more or fewer workers than before. The model is a
dictionary of sessions, and one of closes.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import Any
from uuid import UUID

from attrs import define
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.disk.mortal import OnDisk, roomy
from tests.backends.disk.test_slots import QuickFiles
from tests.backends.test_model import now
from txbits._workers import Worker, slot_of
from txbits.errors import NoSuchSession

_TOTAL = 9
_SOURCE = bytes(range(_TOTAL))
_NUMBERS = st.integers(0, 20)


@define
class _Model:
    """
    What is known of a session.

    :ivar held: How many bytes were acknowledged.
    :ivar session: The session itself, as the process that has it knows it.
    """

    name: str
    session: Any
    held: int = 0


class SlotMachine(OnDisk, RuleBasedStateMachine):
    """A root, and the workers on it."""

    make_files: Any = QuickFiles

    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="txbits-", dir=roomy())
        self.boot = b"%016x" % 0
        self.open: dict[UUID, _Model] = {}
        self.closed: dict[UUID, str] = {}
        self.forgotten: dict[UUID, str] = {}
        self.made = 0
        self.workers: list[Any] = []
        self.begin(1)

    def started(self, number: int, count: int) -> Any:
        self.worker = Worker(number, count)
        backend = self.disk(self.root)
        backend._booted = lambda: self.boot
        now(backend.start())
        return backend

    def begin(self, count: int) -> None:
        self.workers = [self.started(number, count) for number in range(count)]
        self.find_again()
        used = {slot_of(one) for one in (*self.open, *self.closed)}
        slots = sorted(f"slot-{one}" for one in {*range(count), *used} - {0})
        assert self.slots(self.workers[0]) == ["", *slots]

    def find_again(self) -> None:
        for session_id, model in self.open.items():
            model.session = now(self.owner_of(session_id).find(session_id))

    def owner_of(self, session_id: UUID) -> Any:
        return self.workers[self.workers[0].worker_of(session_id)]

    def one_of(self, number: int) -> tuple[UUID, _Model]:
        session_id = list(self.open)[number % len(self.open)]
        return session_id, self.open[session_id]

    # -- what happens

    @rule(count=st.integers(1, 5), is_killed=st.booleans())
    def restart(self, count, is_killed):
        for one in self.workers:
            if is_killed:
                one._files.die()
            else:
                now(one.stop())
        self.begin(count)

    @rule(number=_NUMBERS)
    def one_is_killed(self, number):
        number %= len(self.workers)
        self.workers[number]._files.die()
        self.workers[number] = self.started(number, len(self.workers))
        self.find_again()

    @rule(count=st.integers(1, 5))
    def reboot(self, count):
        for one in self.workers:
            one._files.die()
        self.boot = b"%016x" % (int(self.boot, 16) + 1)
        self.begin(count)
        for model in self.open.values():
            # Bytes that were not synced do not count, though none is lost here.
            assert model.session.offset <= model.held
            model.held = model.session.offset

    @rule(number=_NUMBERS)
    def create(self, number):
        backend = self.workers[number % len(self.workers)]
        self.made += 1
        session_id, name = backend.new_id(), str(self.made)
        making = backend.create(
            session_id,
            (name,),
            owner="me",
            content_name=None,
            overwrite=False,
            create_directories=False,
        )
        self.open[session_id] = _Model(name, now(making))

    @precondition(lambda self: self.open)
    @rule(number=_NUMBERS, length=st.integers(1, _TOTAL))
    def append(self, number, length):
        _, model = self.one_of(number)
        writer = now(model.session.open_writer(_TOTAL))
        piece = _SOURCE[model.held : model.held + length]
        if piece:
            now(writer.write(piece))
        now(writer.close())
        model.held += len(piece)

    @precondition(lambda self: self.open)
    @rule(number=_NUMBERS)
    def close(self, number):
        session_id, model = self.one_of(number)
        self.append(number, _TOTAL)
        now(model.session.publish(overwrite=False, create_directories=False))
        now(model.session.release(remember=True))
        del self.open[session_id]
        self.closed[session_id] = model.name

    @precondition(lambda self: self.open)
    @rule(number=_NUMBERS)
    def cancel(self, number):
        session_id, model = self.one_of(number)
        now(model.session.release())
        del self.open[session_id]

    @rule(forgets=st.booleans())
    def clean_up(self, forgets):
        for one in self.workers:
            now(one.clean_up(1e10 if forgets else 0.0))
        if forgets:
            self.forgotten.update(self.closed)
            self.closed.clear()

    # -- what is always so

    @invariant()
    def each_session_is_with_one_worker_as_it_was(self):
        listed = [one for each in self.workers for one in now(each.sessions())]
        assert len(listed) == len(self.open)
        assert {one.session_id for one in listed} == set(self.open)
        for session_id, model in self.open.items():
            found = now(self.owner_of(session_id).find(session_id))
            assert found.offset == model.held
            assert (found.destination, found.owner) == ((model.name,), "me")

    @invariant()
    def closes_are_recalled_by_those_who_have_the_slot(self):
        for closes, is_known in ((self.closed, True), (self.forgotten, False)):
            for session_id, name in closes.items():
                owner = self.owner_of(session_id)
                recalling = owner.recalls_close(session_id, (name,), "me")
                assert now(recalling) is is_known

    @invariant()
    def published_files_are_whole(self):
        for name in (*self.closed.values(), *self.forgotten.values()):
            assert self.published(self.workers[0], (name,)) == _SOURCE

    @invariant()
    def nothing_else_is_left(self):
        for session_id in self.closed:
            try:
                now(self.owner_of(session_id).find(session_id))
            except NoSuchSession:
                continue
            raise AssertionError("a closed session is found")
        if not self.open:
            assert self.leftovers(self.workers[0]) == []

    def teardown(self):
        for one in self.workers:
            now(one.stop())
        shutil.rmtree(self.root)


class ModelTests(SynchronousTestCase):
    """The machine, run by trial."""

    def test_workers_of_any_number_agree_with_the_model(self):
        case = SlotMachine.TestCase()
        case.settings = settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        case.runTest()
