"""
The bound on what a process holds, without a store: who is served when, and who has to
put something away.
"""

from __future__ import annotations

from attrs import define, field
from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, tuples
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.s3._budget import DEFAULT_MEMORY, Budget, Memory, Share


@define(eq=False)
class Holder:
    """
    Somebody who holds bytes, and puts them away when asked.

    :ivar takes_time: Whether that is over only when :meth:`end` is called.
    """

    share: Share
    held: int = 0
    takes_time: bool = False
    asked: int = 0
    going: int = 0
    waiting: list[Deferred[None]] = field(factory=list)

    def __attrs_post_init__(self):
        self.share.holders.add(self)

    def take(self, length):
        """Hold more; whether that was possible at once."""

        def has(_):
            self.held += length

        taking = self.share.take(length)
        taking.addCallbacks(has, lambda failure: failure.trap(CancelledError))
        self.waiting.append(taking)
        return taking.called

    def put_away(self):
        self.asked += 1
        self.going, self.held = self.going + self.held, 0
        if not self.takes_time:
            self.end()

    def end(self):
        """What was put away is."""
        going, self.going = self.going, 0
        self.share.give(going)


async def wait_with_most(case, share, writer, kib, turn):
    """
    Have a writer wait for room that others get, while it holds more than any of them.

    It would fit as soon as what is leaving has left, so it holds what it has; but who
    needs little passes it.

    :param share: A line beside the writer's, with room for a thousand KiB in both.
    :param turn: Gives the reactor a turn.
    :returns: Those who got the room.
    """
    kib *= 1 << 10
    await writer.write(bytes(400 * kib))
    await share.take(500 * kib)
    share.leaving += 500 * kib
    others = [Holder(share), Holder(share)]
    case.assertFalse(others[0].take(250 * kib))
    writing = writer.write(bytes(300 * kib))
    await turn()
    case.assertFalse(writing.called)
    case.assertTrue(others[1].take(100 * kib))
    share.leaving -= 500 * kib
    share.give(500 * kib)
    await turn()
    case.assertTrue(writing.called)
    await writing
    return others


class MemoryTests(SynchronousTestCase):
    """Those who wait."""

    def setUp(self):
        self.memory = Memory(10).for_uploads()
        self.successResultOf(self.memory.take(8))

    def test_they_are_served_in_order(self):
        first, second = self.memory.take(5), self.memory.take(3)
        self.assertNoResult(second)
        self.memory.give(3)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.memory.give(5)
        self.successResultOf(second)
        self.assertEqual(self.memory.used, 8)

    def test_who_waits_no_more_is_given_nothing(self):
        waiting = self.memory.take(5)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.memory.give(8)
        self.assertEqual(self.memory.used, 0)
        self.assertTrue(self.memory.fits(10))

    def test_nor_does_it_stand_in_anybody_s_way(self):
        first, second = self.memory.take(5), self.memory.take(3)
        self.memory.give(1)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.successResultOf(second)
        self.assertEqual(self.memory.used, 10)

    def test_alone_anything_fits(self):
        waiting = self.memory.take(100)
        self.assertNoResult(waiting)
        self.memory.give(8)
        self.successResultOf(waiting)
        self.assertEqual(self.memory.peak, 100)

    def test_a_larger_bound_is_used_at_once(self):
        waiting = self.memory.take(5)
        self.memory.memory.bound(13)
        self.successResultOf(waiting)


class PassingTests(SynchronousTestCase):
    """Those who need little, and those for whom there is no room."""

    def setUp(self):
        self.memory = Memory(100).for_uploads()
        self.successResultOf(self.memory.take(80))

    def test_who_needs_little_does_not_wait_behind_who_needs_much(self):
        large = self.memory.take(50)
        for _ in range(5):
            self.successResultOf(self.memory.take(1))
        self.assertNoResult(large)

    def test_nor_in_another_directory(self):
        large = self.memory.take(50)
        self.successResultOf(self.memory.memory.for_uploads().take(1))
        self.assertNoResult(large)

    def test_also_when_both_wait(self):
        large, small = self.memory.take(50), self.memory.take(21)
        self.assertNoResult(small)
        self.memory.give(1)
        self.successResultOf(small)
        self.assertNoResult(large)

    def test_but_who_needs_much_does_not_wait_for_ever(self):
        large = self.memory.take(50)
        for _ in range(10):
            self.successResultOf(self.memory.take(10))
            self.memory.give(10)
        # As much as the bound was given out meanwhile.
        small = self.memory.take(10)
        self.assertNoResult(small)
        self.memory.give(30)
        self.successResultOf(large)
        self.assertNoResult(small)
        self.memory.give(50)
        self.successResultOf(small)

    def test_nor_for_other_directories(self):
        large = self.memory.take(50)
        other = self.memory.memory.for_uploads()
        for _ in range(10):
            self.successResultOf(other.take(10))
            other.give(10)
        self.assertNoResult(other.take(10))
        self.memory.give(30)
        self.successResultOf(large)

    def test_whoever_came_before_is_not_kept_by_that(self):
        older, large = self.memory.take(21), self.memory.take(90)
        for _ in range(10):
            self.successResultOf(self.memory.take(10))
            self.memory.give(10)
        # It may hold what the large one needs, and give it when it has been served.
        self.memory.give(1)
        self.successResultOf(older)
        self.assertNoResult(large)

    def test_only_the_first_of_a_line_are_looked_at(self):
        waiting = [self.memory.take(50) for _ in range(64)]
        last = self.memory.take(21)
        self.memory.give(1)
        self.assertNoResult(last)
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        self.successResultOf(last)


class DirectoryTests(SynchronousTestCase):
    """Directories take turns."""

    def test_a_busy_one_does_not_keep_the_others_out(self):
        memory = Memory(10)
        shares = [memory.for_uploads() for _ in range(3)]
        self.successResultOf(shares[0].take(10))
        served = []
        for name, share, count in (("a", shares[0], 6), ("b", shares[1], 2)):
            for _ in range(count):
                share.take(5).addCallback(lambda _, name=name: served.append(name))
        shares[2].take(5).addCallback(lambda _: served.append("c"))
        for _ in range(9):
            memory.give(memory.uploads, 5)
        self.assertEqual("".join(served), "abcabaaaa")


class ReplyTests(SynchronousTestCase):
    """Uploads and replies have shares."""

    def setUp(self):
        self.memory = Memory(100)
        self.uploads = self.memory.for_uploads()
        self.replies = self.memory.for_replies()

    def test_replies_have_half(self):
        self.successResultOf(self.replies.take(50))
        more = self.replies.take(1)
        self.assertNoResult(more)
        self.replies.give(1)
        self.successResultOf(more)

    def test_that_of_all_directories_together(self):
        self.successResultOf(self.replies.take(50))
        self.assertNoResult(self.memory.for_replies().take(1))

    def test_uploads_have_the_other_half_whoever_waits(self):
        self.successResultOf(self.replies.take(50))
        waiting = [self.replies.take(length) for length in (50, 1, 30)]
        self.assertTrue(self.uploads.fits(50))
        self.assertFalse(self.replies.fits(0))
        # However long that goes on.
        for _ in range(10):
            self.successResultOf(self.uploads.take(50))
            self.uploads.give(50)
        for one in waiting:
            self.assertNoResult(one)

    def test_uploads_may_have_all_while_nobody_replies(self):
        self.successResultOf(self.uploads.take(100))
        reply = self.replies.take(1)
        self.uploads.give(1)
        self.successResultOf(reply)

    def test_what_fits_soon_fits_its_share(self):
        self.successResultOf(self.replies.take(50))
        self.assertFalse(self.replies.fits_soon(1))
        self.assertTrue(self.uploads.fits_soon(50))
        self.replies.leaving += 20
        self.assertTrue(self.replies.fits_soon(20))
        self.assertFalse(self.replies.fits_soon(21))
        waiting = self.replies.take(15)
        self.assertTrue(self.replies.fits_soon(5))
        self.assertFalse(self.replies.fits_soon(6))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertTrue(self.replies.fits_soon(20))


class RelievingTests(SynchronousTestCase):
    """Those who hold most have to put it away."""

    def setUp(self):
        self.memory = Memory(100)
        self.upload = Holder(self.memory.for_uploads())
        self.reply = Holder(self.memory.for_replies())

    def test_the_largest_goes(self):
        self.upload.take(60)
        self.reply.take(40)
        other = Holder(self.memory.for_uploads())
        self.assertTrue(other.take(50))
        self.assertEqual((self.upload.asked, self.reply.asked), (1, 0))

    def test_a_reply_as_well_as_an_upload(self):
        self.reply.take(50)
        self.upload.take(40)
        self.assertTrue(self.upload.take(30))
        self.assertEqual((self.upload.asked, self.reply.asked), (0, 1))

    def test_only_replies_go_for_replies(self):
        self.upload.take(45)
        self.reply.take(40)
        other = Holder(self.memory.for_replies())
        self.assertTrue(other.take(15))
        self.assertEqual((self.upload.asked, self.reply.asked), (0, 1))

    def test_nothing_goes_if_what_is_leaving_is_enough(self):
        self.upload.take(90)
        self.memory.uploads.leaving += 50
        self.assertFalse(Holder(self.memory.for_uploads()).take(60))
        self.assertEqual(self.upload.asked, 0)

    def test_the_next_goes_if_the_first_was_not_enough(self):
        for holder, length in ((self.upload, 50), (self.reply, 40)):
            holder.takes_time = True
            holder.take(length)
        other = Holder(self.memory.for_uploads())
        self.assertFalse(other.take(80))
        self.assertEqual((self.upload.asked, self.reply.asked), (1, 0))
        self.upload.end()
        self.assertEqual(self.reply.asked, 1)
        self.reply.end()
        self.assertEqual(other.held, 80)

    def test_slow_replies_leave_uploads_alone(self):
        # Each has a little, and asks for more and more, and nobody ends.
        slow = [Holder(self.memory.for_replies()) for _ in range(30)]
        for _ in range(20):
            for one in slow:
                one.take(4)
            self.assertTrue(self.upload.take(10))
            self.upload.put_away()
        self.assertLessEqual(self.memory.peak, 100)
        self.assertLessEqual(self.memory.replies.used, 50)


class BoundTests(SynchronousTestCase):
    """The bound holds, and everybody is served."""

    @given(
        lists(
            tuples(booleans(), integers(0, 2), integers(1, 40), booleans()),
            max_size=60,
        )
    )
    def test_whatever_comes(self, steps):
        memory = Memory(100)
        uploads = [memory.for_uploads() for _ in range(3)]
        replies = [memory.for_replies() for _ in range(3)]
        holders = []
        for is_reply, number, length, is_slow in steps:
            holder = Holder((replies if is_reply else uploads)[number])
            holder.takes_time = is_slow
            holders.append(holder)
            holder.take(length)
            self.assertLessEqual(memory.used, 100)
            self.assertLessEqual(memory.replies.used, 50)
        for holder in holders:
            holder.takes_time = False
        for holder in holders * len(holders):
            holder.end()
        for holder in holders * len(holders):
            holder.put_away()
        for holder in holders:
            for one in holder.waiting:
                self.assertTrue(one.called)
        self.assertEqual((memory.used, list(memory.lines)), (0, []))
        self.assertEqual((memory.uploads.waited_for, memory.replies.waited_for), (0, 0))
        self.assertLessEqual(memory.peak, 100)


class BudgetTests(SynchronousTestCase):
    """The bound of all directories."""

    def test_who_waits_is_served_when_it_grows(self):
        budget = Budget()
        memory = budget.join("a", 20).for_uploads()
        self.successResultOf(memory.take(20))
        waiting = memory.take(10)
        self.assertNoResult(waiting)
        budget.join("b", 30)
        self.successResultOf(waiting)

    def test_workers_share_it_but_each_has_what_its_backends_need(self):
        for workers, limit in ((1, 120), (2, 60), (3, 40), (6, 30)):
            budget = Budget()
            budget.join("a", 120, workers, 20)
            budget.join("b", 100, workers, 30)
            self.assertEqual(budget.memory.limit, limit)
            budget.leave("a")
            budget.leave("b")
            self.assertEqual(budget.memory.limit, DEFAULT_MEMORY // workers)
