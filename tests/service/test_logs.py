"""
The log as text, as JSON, and in the journal of systemd, and how ``twistd`` and
``twist`` are told.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.logger import (
    Logger,
    LogLevel,
    LogPublisher,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txbits.service._log_lines import (
    Stamps,
    message_of,
    text_observer,
)
from txbits.service._logs import (
    JournalObserver,
    fields_of,
    is_journal,
    json_line,
    json_observer,
    observer_factory,
)
from txbits.service.options import Options

#: The options of twistd in the foreground.
TWISTD = {"nodaemon": 1, "logfile": None, "syslog": 0, "logger": None}


def entries(datagram: bytes) -> dict[str, str]:
    """Read the journal's native protocol, every value with its length."""
    found = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        length = int.from_bytes(rest[:8], "little")
        found[name.decode()] = rest[8 : 8 + length].decode()
        assert rest[8 + length : 9 + length] == b"\n"
        datagram = rest[9 + length :]
    return found


class Unformattable:
    """An object that has no text."""

    def __format__(self, spec):
        raise ValueError("no text")

    __str__ = __repr__ = lambda self: "unformattable"


#: Formats: text, braces that are text or mistakes, and fields of all kinds.
FORMATS = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.sampled_from(
            [
                *["{", "}", "{{", "}}", "\n", "{a}", "{b}", "{c}", "{missing}", "{0}"],
                *["{}", "{a!r}", "{b:>5}", "{a.real}", "{call()}", "{b[0]}", "{a }"],
            ]
        ),
    ),
    max_size=6,
).map("".join)
TIMES = st.one_of(
    st.none(),
    st.integers(0, 2**31),
    st.floats(0, 1e10),
    # Times that are rounded to the next second.
    st.builds(lambda s, f: s + f, st.integers(0, 2**31), st.floats(0.99999, 1)),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.uuids(),
    st.builds(Unformattable),
)
EVENTS = st.fixed_dictionaries(
    {"log_format": st.one_of(st.none(), FORMATS, st.just(b"b{a}"), st.just(7))},
    optional={
        "log_time": TIMES,
        "log_level": st.sampled_from([LogLevel.info, LogLevel.critical]),
        "log_namespace": st.sampled_from(["txbits", "a{b}", "two\nlines"]),
        "log_system": st.one_of(st.none(), st.integers(), st.text(max_size=5)),
        "log_failure": st.builds(Failure, st.builds(ValueError, st.text())),
        "a": VALUES,
        "b": VALUES,
        "c": VALUES,
        "call": st.just(lambda: "called"),
    },
)


#: An event with nothing of its own.
PLAIN = {
    "log_time": 1.5,
    "log_level": LogLevel.info,
    "log_namespace": "txbits",
    "log_format": "{a}",
}


class TextTests(SynchronousTestCase):
    """Lines of text."""

    @given(st.lists(EVENTS, max_size=4))
    def test_lines_are_those_of_twisted(self, events):
        for kind in (io.StringIO, io.BytesIO):
            ours, theirs = kind(), kind()
            text, twisted = text_observer(ours), textFileLogObserver(theirs)
            for event in events:
                try:
                    twisted(dict(event))
                except UnicodeEncodeError:
                    continue
                text(dict(event))
            self.assertEqual(ours.getvalue(), theirs.getvalue())

    @given(EVENTS)
    def test_text_of_an_event_is_that_of_twisted(self, event):
        self.assertEqual(message_of(dict(event)), formatEvent(dict(event)))

    def test_timestamps_are_made_once_a_second(self):
        made = []
        stamps = Stamps(lambda when: made.append(when) or str(when))
        times = (5.0, 5.5, 5.75, 6.25, 5.5)
        self.assertEqual([stamps(t) for t in times], ["5", "5", "5", "6", "5"])
        self.assertEqual(made, [5, 6, 5])

    def test_a_line_that_the_file_cannot_encode_is_written_with_escapes(self):
        for errors, file in (
            (None, io.BytesIO()),
            ("strict", io.TextIOWrapper(buffer := io.BytesIO(), "ascii")),
        ):
            log = Logger("here", observer=text_observer(file))
            log.info("{path}", path="a\udcff")
            log.info("next")
            lines = (buffer if errors else file).getvalue().splitlines()
            self.assertTrue(lines[0].endswith(rb"[here#info] a\udcff"), lines)
            self.assertTrue(lines[1].endswith(b"[here#info] next"), lines)

    def test_lines_are_in_the_file_when_the_call_returns(self):
        path = Path(self.mktemp())
        with path.open("w") as file:
            log = Logger("here", observer=LogPublisher(text_observer(file)))
            for count in range(1, 4):
                log.info("{count} files", count=count)
                self.assertEqual(len(path.read_text().splitlines()), count)


class JsonTests(SynchronousTestCase):
    """Lines of JSON."""

    def logged(self, *texts, **fields):
        """What an event becomes."""
        file = io.StringIO()
        log = Logger("txbits.tests", observer=json_observer(file))
        log.warn(*texts, **fields)
        (line,) = file.getvalue().splitlines()
        return json.loads(line)

    def test_a_line_has_the_text_and_the_fields(self):
        line = self.logged("{who} came", who="al\nice", session=None, bytes=7)
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}\+00:00$")
        self.assertEqual(
            line,
            {
                "level": "warn",
                "logger": "txbits.tests",
                "message": "al\nice came",
                "who": "al\nice",
                "session": None,
                "bytes": 7,
            },
        )

    @given(st.floats(-1e9, 1e10))
    @example(1e9 - 1e-7)
    @example(1e9 + 0.9999999)
    @example(5e-7)
    def test_times_are_those_of_datetime(self, when):
        log_event = {
            "log_time": when,
            "log_level": LogLevel.info,
            "log_namespace": "x",
            "log_format": "",
        }
        moment = datetime.fromtimestamp(when, UTC)
        self.assertEqual(
            json.loads(json_line(log_event))["time"],
            moment.isoformat(timespec="microseconds"),
        )

    @given(EVENTS)
    @example({**PLAIN, "level": "ours", "logger": 1, "a": "b"})
    @example({**PLAIN, "traceback": "ours", "message": ("legacy",), "time": 1.5})
    @example({**PLAIN, "a": True, "b": 1.5, "c": [1, "\udc80"], 'd"': "\x00"})
    def test_lines_are_those_of_json(self, event):
        event = {**PLAIN, **event}
        event["log_time"] = event["log_time"] or 1.5
        expected = {
            "time": json.loads(json_line(event))["time"],
            "level": event["log_level"].name,
            "logger": event["log_namespace"],
            "message": formatEvent(dict(event)),
            **fields_of(event),
        }
        self.assertEqual(json_line(event), json.dumps(expected) + "\n")

    def test_values_that_json_does_not_have_are_written_as_text(self):
        uuid = UUID(int=1)
        line = self.logged(
            "x",
            session=uuid,
            error=OSError("no"),
            most=float("inf"),
            mounts=("/", "/a"),
        )
        self.assertEqual(line["session"], str(uuid))
        self.assertEqual(line["error"], "no")
        self.assertEqual(line["most"], "inf")
        self.assertEqual(line["mounts"], ["/", "/a"])

    def test_objects_are_left_out(self):
        line = self.logged("x", reactor=object())
        self.assertNotIn("reactor", line)

    def test_names_of_files_that_are_not_text_do_no_harm(self):
        line = self.logged("{path}", path="a\udcff")
        self.assertEqual(line["path"], "a\udcff")

    def test_a_failure_has_its_traceback(self):
        file = io.StringIO()
        log = Logger("txbits.tests", observer=json_observer(file))
        log.failure("it broke", Failure(ValueError("why")), directory="/logs")
        line = json.loads(file.getvalue())
        self.assertEqual(line["message"], "it broke")
        self.assertEqual(line["directory"], "/logs")
        self.assertIn("ValueError: why", line["traceback"])


class JournalTests(SynchronousTestCase):
    """Entries of the journal."""

    def setUp(self):
        self.path = self.mktemp()
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.journal.close)
        self.journal.setblocking(False)
        self.output = io.StringIO()

    def logged(self, level, text, **fields):
        observer = JournalObserver(text_observer(self.output), self.path)
        self.addCleanup(observer._socket.close)
        Logger("txbits.tests", observer=observer).emit(level, text, **fields)

    def test_an_entry_has_the_text_and_a_field_for_each_field(self):
        self.journal.bind(self.path)
        self.logged(
            LogLevel.error, "{user}\nsent {bytes}", user="alice", bytes=7, scheme=None
        )
        self.assertEqual(
            entries(self.journal.recv(65536)),
            {
                "PRIORITY": "3",
                "SYSLOG_IDENTIFIER": "txbits",
                "MESSAGE": "alice\nsent 7",
                "TXBITS_LOGGER": "txbits.tests",
                "TXBITS_USER": "alice",
                "TXBITS_BYTES": "7",
            },
        )
        self.assertEqual(self.output.getvalue(), "")

    def test_a_long_value_is_cut(self):
        self.journal.bind(self.path)
        self.logged(LogLevel.info, "x" * 100_000)
        self.assertEqual(entries(self.journal.recv(200_000))["MESSAGE"], "x" * 16_000)

    def test_what_the_journal_does_not_take_is_written_as_text(self):
        self.logged(LogLevel.info, "nobody listens")
        self.assertIn("nobody listens", self.output.getvalue())

    def test_the_journal_is_known_by_the_environment_that_systemd_sets(self):
        with open(os.devnull) as output:
            found = os.fstat(output.fileno())
            right = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
            self.assertTrue(is_journal(output, right))
            for wrong in ({}, {"JOURNAL_STREAM": "1:2"}):
                self.assertFalse(is_journal(output, wrong))
        self.assertFalse(is_journal(io.StringIO(), {}))


class ChoiceTests(SynchronousTestCase):
    """``log-format`` and the options of twistd and twist."""

    def parsed(self, parent, *arguments):
        options = Options()
        options.parent = parent
        options.parseOptions(arguments)
        return options

    def test_twistd_logs_as_text_to_standard_output_without_the_setting(self):
        options = self.parsed(dict(TWISTD))
        self.assertFalse(options.logs_to_file)
        file = io.StringIO()
        self.patch(sys, "stdout", file)
        Logger("txbits.tests", observer=options.make_observer()).info("x")
        self.assertTrue(file.getvalue().endswith(" [txbits.tests#info] x\n"))

    def test_other_loggers_of_twistd_are_left_alone(self):
        for other in ({"syslog": 1}, {"logger": "some.observer"}):
            self.assertIsNone(self.parsed({**TWISTD, **other}).make_observer)

    def test_twistd_logs_as_json_to_standard_output(self):
        parent = dict(TWISTD)
        options = self.parsed(parent, "--log-format", "json")
        self.assertFalse(options.logs_to_file)
        file = io.StringIO()
        self.patch(sys, "stdout", file)
        Logger("txbits.tests", observer=options.make_observer()).info("x")
        self.assertEqual(json.loads(file.getvalue())["message"], "x")

    def test_twistd_logs_as_json_to_its_file_and_rotates_it(self):
        path = self.mktemp()
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        observer = observer_factory("json", {**TWISTD, "logfile": path})()
        Logger("txbits.tests", observer=observer).info("x")
        self.assertEqual(json.loads(Path(path).read_text())["message"], "x")
        self.assertTrue(callable(signal.getsignal(signal.SIGUSR1)))

    def test_a_daemon_cannot_log_to_standard_output(self):
        make = observer_factory("json", {**TWISTD, "nodaemon": 0, "logfile": "-"})
        self.assertRaises(SystemExit, make)

    def test_another_logger_of_twistd_is_a_contradiction(self):
        for other in ({"syslog": 1}, {"logger": "some.observer"}):
            error = self.assertRaises(
                SystemExit, self.parsed, {**TWISTD, **other}, "--log-format=json"
            )
            self.assertIn("cannot be combined", str(error))

    def test_twist_is_told_the_format(self):
        for name, observer in (("json", json_observer), ("text", text_observer)):
            parent = {"fileLogObserverFactory": None}
            self.parsed(parent, "--log-format", name)
            self.assertIs(parent["fileLogObserverFactory"], observer)
        parent = {"fileLogObserverFactory": textFileLogObserver}
        self.parsed(parent)
        self.assertIs(parent["fileLogObserverFactory"], text_observer)
        parent = {"fileLogObserverFactory": "its own"}
        self.parsed(parent)
        self.assertEqual(parent["fileLogObserverFactory"], "its own")

    def test_other_formats_are_refused(self):
        error = self.assertRaises(SystemExit, self.parsed, None, "--log-format=xml")
        self.assertIn("must be one of 'text', 'json'", str(error))

    def test_every_line_of_a_server_is_json(self):
        for program in ("twistd -n --pidfile=", "twist"):
            command, *more = program.split()
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "import sys; from twisted.internet import reactor; "
                    "reactor.callWhenRunning(reactor.callLater, 1, reactor.stop); "
                    + (
                        "from twisted.scripts.twistd import run; run()"
                        if command == "twistd"
                        else "from twisted.application.twist._twist import Twist; "
                        "Twist.main()"
                    ),
                    *more,
                    *["txbits", "--log-format", "json", "--backend", "memory:"],
                    *["--listen", "tcp:0:interface=127.0.0.1"],
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            (one,) = (x for x in lines if x["message"].startswith("listening on"))
            self.assertEqual(one["mounts"], "/")
