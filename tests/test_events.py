"""
Frequent log events: formatted before they are emitted, and otherwise like any other.
"""

from __future__ import annotations

from twisted.logger import (
    Logger,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
)
from twisted.trial.unittest import SynchronousTestCase

from txbits._events import log_often


class LogOftenTests(SynchronousTestCase):
    """:func:`txbits._events.log_often`."""

    def setUp(self) -> None:
        self.events: list[dict[str, object]] = []
        self.log = Logger(namespace="here", observer=self.events.append)

    def test_text_has_the_fields(self) -> None:
        log_often(self.log, "{count} files of {user}", count=3, user="ada")
        (event,) = self.events
        self.assertEqual(formatEvent(event), "3 files of ada")

    def test_fields_are_in_the_event(self) -> None:
        log_often(self.log, "{count} files", count=3, user=None)
        (event,) = self.events
        self.assertEqual((event["count"], event["user"]), (3, None))
        self.assertEqual(event["log_level"], LogLevel.info)
        self.assertEqual(event["log_namespace"], "here")

    def test_lines_are_those_of_the_logger(self) -> None:
        log_often(self.log, "{count} files", count=3)
        self.log.info("{count} files", count=3)
        often, plain = self.events
        lines = [
            formatEventAsClassicLogText(event, formatTime=lambda when: "now")
            for event in self.events
        ]
        self.assertEqual(lines, ["now [here#info] 3 files\n"] * 2)
        for event in self.events:
            self.assertIsInstance(event.pop("log_time"), float)
        self.assertEqual(often.pop("log_format"), "3 files")
        self.assertEqual(often.pop("log_system"), "here#info")
        del plain["log_format"]
        self.assertEqual(often, plain)

    def test_braces_in_a_field_are_text(self) -> None:
        log_often(self.log, "{name}", name="a{user}b}c", user="ada")
        (event,) = self.events
        self.assertEqual(formatEvent(event), "a{user}b}c")
