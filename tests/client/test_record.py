"""
What of an upload is written into its journal, and how often.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txbits.client.journal import Journal, Record
from txbits.client.source import FileIdentity
from txbits.protocol.upload import Position

FILE = FileIdentity("/data/x", 1, 2, 1000, 4)
POSITION = Position("{7DF0354D-249B-430F-820D-3D2A9BEF4931}", 0)


class RecordTests(SynchronousTestCase):
    """An upload that moves."""

    def setUp(self) -> None:
        self.clock = Clock()
        path = Path(self.mktemp()) / "x.json"
        self.journal = self.successResultOf(
            Journal.open(path, "http://h/x", FILE, lambda: 1e9, maybeDeferred)
        )
        self.addCleanup(self.journal.close)
        self.record = Record(self.clock, self.journal)

    def write(self, position: Position) -> None:
        writing = Deferred.fromCoroutine(self.record.write(position))
        self.successResultOf(writing)

    def written(self) -> Position:
        assert self.journal.found is not None
        return self.journal.found.position

    def test_an_offset_alone_is_written_once_a_second(self) -> None:
        self.write(POSITION)
        self.write(evolve(POSITION, offset=10))
        self.assertEqual(self.written().offset, 0)
        self.clock.advance(1)
        self.write(evolve(POSITION, offset=20))
        self.assertEqual(self.written().offset, 20)
        self.write(evolve(POSITION, offset=30))
        self.assertEqual(self.written().offset, 20)

    def test_all_else_is_written_at_once(self) -> None:
        self.write(POSITION)
        position = evolve(POSITION, offset=10, reply_url="http://h/r")
        self.write(position)
        self.assertEqual(self.written(), position)

    def test_where_it_ends_is_written(self) -> None:
        self.write(POSITION)
        self.write(evolve(POSITION, offset=10))
        ending = self.record.catch_up(evolve(POSITION, offset=10))
        self.successResultOf(Deferred.fromCoroutine(ending))
        self.assertEqual(self.written().offset, 10)
