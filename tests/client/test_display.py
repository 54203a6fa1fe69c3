"""
What is shown of an upload, on terminals and elsewhere.
"""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Pipe, Terminal
from txbits.client._display import (
    Display,
    JSONDisplay,
    NoDisplay,
    PlainDisplay,
    write,
)
from txbits.client._rich import RichDisplay
from txbits.client.commands._show import display_for
from txbits.client.events import Created, Event, Paused, Progress, Waiting

SESSION = "{7DF0354D-249B-430F-820D-3D2A9BEF4931}"


class ChoiceTests(SynchronousTestCase):
    """Which display fits."""

    def test_terminals_get_a_bar(self) -> None:
        self.assertIsInstance(display_for(Terminal(), Clock()), RichDisplay)

    def test_whoever_wants_to_see_all_gets_lines(self) -> None:
        display = display_for(Terminal(), Clock(), verbose=True)
        self.assertIsInstance(display, PlainDisplay)

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


class VerboseTests(SynchronousTestCase):
    """Lines for all that happens."""

    def test_each_fragment_and_session_has_a_line(self) -> None:
        out = Pipe()
        display = PlainDisplay(out, Clock(), verbose=True)
        for event in (
            Created(SESSION),
            Progress(0, 0, 1000),
            Progress(5, 0, 1000),
            Progress(5, 5, 1000),
            Progress(9, 9, 1000),
            Paused(9),
        ):
            display.show(event)
        self.assertEqual(
            out.getvalue().splitlines(),
            [
                f"session {SESSION}",
                "  0 % 0 of 1,000 bytes",
                "  0 % 5 of 1,000 bytes",
                "  0 % 9 of 1,000 bytes",
                "paused; the server holds 9 bytes",
            ],
        )


class JSONTests(SynchronousTestCase):
    """Lines for programs."""

    def test_each_event_is_a_line_of_json(self) -> None:
        out = Pipe()
        display = JSONDisplay(out, Clock())
        for event in (
            Created(SESSION),
            Progress(0, 0, 9),
            Waiting(0.5, "cable cut"),
            Progress(9, 9, 9),
            Paused(9),
        ):
            display.show(event)
        display.end()
        self.assertEqual(
            [json.loads(line) for line in out.getvalue().splitlines()],
            [
                {"event": "session", "session": SESSION},
                {"event": "progress", "sent": 0, "acknowledged": 0, "total": 9},
                {"event": "waiting", "seconds": 0.5, "cause": "cable cut"},
                {"event": "progress", "sent": 9, "acknowledged": 9, "total": 9},
                {"event": "paused", "acknowledged": 9},
            ],
        )

    def test_what_is_on_its_way_is_told_now_and_then(self) -> None:
        out, clock = Pipe(), Clock()
        display = JSONDisplay(out, clock)
        for sent in range(100):
            display.show(Progress(sent, 0, 100))
            clock.advance(0.05)
        self.assertEqual(len(out.getvalue().splitlines()), 5)


class RichTests(SynchronousTestCase):
    """What rich draws."""

    def test_a_bar_shows_how_far_it_is(self) -> None:
        out, clock = Terminal(), Clock()
        display: Display = RichDisplay(out, clock)
        display.show(Progress(0, 0, 4_000_000))
        clock.advance(1)
        display.show(Waiting(1.0, "the [red]cable[/red] was cut"))
        display.show(Progress(2_000_000, 0, 4_000_000))
        display.show(Paused(0))
        display.show(Progress(4_000_000, 4_000_000, 4_000_000))
        display.end()
        display.end()
        self.assertIn("the [red]cable[/red] was cut; trying again", out.getvalue())
        self.assertIn("4.0/4.0 MB", out.getvalue())
        self.assertIn("100%", out.getvalue())

    def test_it_is_not_redrawn_too_often(self) -> None:
        out, clock = Terminal(), Clock()
        display = RichDisplay(out, clock)
        for sent in range(100):
            display.show(Progress(sent, 0, 100))
            clock.advance(0.01)
        self.assertLess(out.getvalue().count("\r"), 25)
        display.show(Progress(100, 100, 100))
        display.end()
        self.assertIn("100%", out.getvalue())

    def test_what_happens_before_the_bar_is_not_drawn(self) -> None:
        out = Terminal()
        display = RichDisplay(out, Clock())
        events: list[Event] = [Created(SESSION), Waiting(1.0, "cable cut")]
        for event in events:
            display.show(event)
        display.end()
        self.assertEqual(out.getvalue(), "")


class NoDisplayTests(SynchronousTestCase):
    """Nothing."""

    def test_nothing_comes_of_it(self) -> None:
        display = NoDisplay()
        display.show(Progress(0, 0, 1))
        display.end()
