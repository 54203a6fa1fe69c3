"""
When the part of a download is made safe.
"""

from __future__ import annotations

import errno

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txbits.client._saving import SAVED_AFTER, SAVED_BYTES, Saving


@define
class _Part:
    """A part of which a test says how much is unsafe."""

    unsafe: int = 0
    saves: int = field(init=False, default=0)

    def save(self) -> None:
        self.saves += 1
        self.unsafe = 0


class SavingTests(SynchronousTestCase):
    """A part that grows."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.part = _Part()
        self.held: Deferred[None] | None = None
        self.failure: OSError | None = None
        self.saving = Saving(self.clock, self.part, self.run_save)

    def run_save(self, function):
        if self.failure is not None:
            return fail(self.failure)
        function()
        return succeed(None) if self.held is None else self.held

    def grow(self, count: int) -> None:
        self.part.unsafe += count
        self.saving.more_came()

    def test_many_bytes_are_made_safe_at_once(self) -> None:
        self.grow(SAVED_BYTES - 1)
        self.assertEqual(self.part.saves, 0)
        self.grow(1)
        self.assertEqual(self.part.saves, 1)
        self.grow(1)
        self.assertEqual(self.part.saves, 1)

    def test_few_are_after_some_seconds(self) -> None:
        self.grow(1)
        self.clock.advance(SAVED_AFTER - 1)
        self.grow(1)
        self.assertEqual(self.part.saves, 0)
        self.clock.advance(1)
        self.grow(1)
        self.assertEqual(self.part.saves, 1)
        self.clock.advance(SAVED_AFTER)
        self.grow(1)
        self.assertEqual(self.part.saves, 2)

    def test_one_at_a_time(self) -> None:
        self.held = Deferred()
        self.grow(SAVED_BYTES)
        self.grow(SAVED_BYTES)
        self.assertEqual(self.part.saves, 1)
        self.held.callback(None)
        self.grow(1)
        self.assertEqual(self.part.saves, 2)

    def test_a_failure_is_told_to_whom_more_comes(self) -> None:
        self.failure = OSError(errno.EIO, "Input/output error")
        self.grow(SAVED_BYTES)
        self.assertRaises(OSError, self.grow, 1)
