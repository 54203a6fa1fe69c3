"""
What is shown of an upload, on terminals and elsewhere.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Pipe, Terminal
from txbits.client._display import PlainDisplay, TerminalDisplay, display_for, write
from txbits.client.uploader import Progress, Waiting


class ChoiceTests(SynchronousTestCase):
    """Which display fits."""

    def test_terminals_get_a_line_that_is_rewritten(self) -> None:
        self.assertIsInstance(display_for(Terminal(), Clock()), TerminalDisplay)

    def test_anything_else_gets_plain_lines(self) -> None:
        self.assertIsInstance(display_for(Pipe(), Clock()), PlainDisplay)


class PlainTests(SynchronousTestCase):
    """Lines."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.out = Pipe()
        self.display = PlainDisplay(self.out, self.clock)

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    def test_there_is_a_line_for_each_tenth(self) -> None:
        for done in range(0, 3001, 50):
            self.display.show(Progress(done, done, 3000))
        self.display.end()
        self.assertEqual(len(self.lines()), 11)
        self.assertEqual(self.lines()[0], "  0 % 0 of 3,000 bytes")
        self.assertEqual(self.lines()[5], " 50 % 1,500 of 3,000 bytes")
        self.assertEqual(self.lines()[-1], "100 % 3,000 of 3,000 bytes")

    def test_what_is_sent_but_not_acknowledged_does_not_count(self) -> None:
        self.display.show(Progress(0, 0, 3000))
        self.display.show(Progress(3000, 0, 3000))
        self.assertEqual(len(self.lines()), 1)

    def test_slow_uploads_get_a_line_now_and_then(self) -> None:
        self.display.show(Progress(0, 0, 10**9))
        self.clock.advance(59)
        self.display.show(Progress(1, 1, 10**9))
        self.clock.advance(1)
        self.display.show(Progress(2, 2, 10**9))
        self.clock.advance(60)
        self.display.show(Progress(3, 2, 10**9))
        self.assertEqual(
            self.lines()[1:], ["  0 % 2 of 1,000,000,000 bytes"], "nothing new is said"
        )

    def test_beginning_again_repeats_no_line(self) -> None:
        for done in (50, 100, 0, 50, 100):
            self.display.show(Progress(done, done, 100))
        self.assertEqual(len(self.lines()), 2)

    def test_an_empty_file_is_whole(self) -> None:
        self.display.show(Progress(0, 0, 0))
        self.assertEqual(self.lines(), ["100 % 0 of 0 bytes"])

    def test_waiting_is_said(self) -> None:
        self.display.show(Waiting(0.375, "the connection was lost"))
        self.assertEqual(
            self.lines(), ["the connection was lost; trying again in 0.4 s"]
        )

    def test_a_reader_who_is_gone_is_not_missed(self) -> None:
        self.out.broken = True
        self.display.show(Progress(0, 0, 1))

    def test_what_cannot_be_shown_is_escaped(self) -> None:
        write(self.out, "größe")
        self.assertEqual(self.out.getvalue(), "gr\\xf6\\xdfe")


class TerminalTests(SynchronousTestCase):
    """One line."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.out = Terminal()
        self.display = TerminalDisplay(self.out, self.clock)

    def test_the_line_is_rewritten(self) -> None:
        self.display.show(Progress(10, 0, 100))
        self.clock.advance(1)
        self.display.show(Progress(20, 10, 100))
        self.assertEqual(
            self.out.getvalue(), "\r 10 % 10 of 100 bytes\r 20 % 20 of 100 bytes"
        )

    def test_it_is_not_rewritten_too_often(self) -> None:
        for sent in range(100):
            self.display.show(Progress(sent, 0, 100))
            self.clock.advance(0.01)
        self.assertLess(self.out.getvalue().count("\r"), 12)

    def test_the_end_is_shown_in_any_case(self) -> None:
        self.display.show(Progress(99, 0, 100))
        self.display.show(Progress(100, 100, 100))
        self.assertIn("100 % 100 of 100 bytes", self.out.getvalue())

    def test_a_shorter_line_covers_a_longer_one(self) -> None:
        self.display.show(Waiting(1, "a long story"))
        self.clock.advance(1)
        self.display.show(Progress(0, 0, 1))
        first, second = self.out.getvalue()[1:].split("\r")
        self.assertEqual(len(first), len(second))

    def test_what_follows_starts_a_line(self) -> None:
        self.display.end()
        self.display.show(Progress(0, 0, 1))
        self.display.end()
        self.display.end()
        self.assertEqual(self.out.getvalue().count("\n"), 1)
