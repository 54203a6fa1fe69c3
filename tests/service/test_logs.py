"""
The log as JSON and in the journal of systemd, and how ``twistd`` and ``twist`` are
told.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from uuid import UUID

from twisted.logger import Logger, LogLevel, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txbits.service._logs import (
    JournalObserver,
    is_journal,
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
        observer = JournalObserver(self.output, self.path)
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

    def test_twistd_is_left_alone_without_the_setting(self):
        parent = dict(TWISTD)
        options = self.parsed(parent)
        self.assertIsNone(options.make_observer)
        self.assertFalse(options.logs_to_file)

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
        for name, observer in (("json", json_observer), ("text", textFileLogObserver)):
            parent = {"fileLogObserverFactory": None}
            self.parsed(parent, "--log-format", name)
            self.assertIs(parent["fileLogObserverFactory"], observer)
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
