"""
The log of a worker on its way to that of the supervisor: real pipes, with both ends in
this process. Real workers are in ``tests/integration/test_workers.py``.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pickle
import socket
from pathlib import Path
from threading import Thread
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import (
    Logger,
    LogLevel,
    LogPublisher,
    formatEvent,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.service.test_logs import EVENTS, PLAIN, entries
from txbits.service._log_lines import text_observer
from txbits.service._logs import JournalObserver, json_line, json_observer
from txbits.service._workers import _log
from txbits.service._workers._log import (
    Incoming,
    Output,
    PipeReader,
    WorkerError,
    WorkerLogs,
    observer_of,
    open_pipe,
)


class WorkerLogTestCase(SynchronousTestCase):
    """Has the two ends of a pipe, and what the supervisor logs itself."""

    def setUp(self):
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def connect(self, observer):
        """Let worker 3 log to where a supervisor logs with *observer*."""
        self.reader, self.writer = open_pipe()
        logs = WorkerLogs.of(observer)
        self.incoming = logs.incoming(3)
        setup = pickle.loads(pickle.dumps(logs.setup(self.writer)))
        self.worker = observer_of(setup, 3)
        self.log = Logger("txbits.x", observer=self.worker)

    def end(self, size=65536):
        """Deliver what is in the pipe, some bytes at a time, and end the worker."""
        os.close(self.writer)
        while data := os.read(self.reader, size):
            self.incoming.received(data)
        os.close(self.reader)
        self.incoming.ended()


class EventTests(WorkerLogTestCase):
    """A log of the supervisor that is not known to be lines in a file."""

    def setUp(self):
        super().setUp()
        self.connect(None)

    def test_an_event_keeps_its_text_its_fields_and_its_time(self):
        self.log.info("{name} is\n{size} long", name="\xe4\u20ac", size=7, it=object())
        self.end(5)
        (event,) = self.events
        self.assertEqual(formatEvent(event), "\xe4\u20ac is\n7 long")
        self.assertEqual(event["log_namespace"], "txbits.x")
        self.assertEqual(event["log_level"].name, "info")
        self.assertEqual(event["log_system"], "worker 3: txbits.x#info")
        told = json.loads(json_line(event))
        self.assertEqual((told["name"], told["size"]), ("\xe4\u20ac", 7))
        self.assertEqual(told["worker"], 3)
        self.assertNotIn("it", told)

    def test_a_failure_keeps_its_traceback(self):
        try:
            raise ZeroDivisionError("nothing")
        except ZeroDivisionError:
            self.log.failure("failed")
        self.end()
        (event,) = self.events
        traceback = event["log_failure"].getTraceback()
        self.assertIn("ZeroDivisionError: nothing", traceback)
        self.assertEqual(json.loads(json_line(event))["traceback"], traceback)
        (failure,) = self.flushLoggedErrors(WorkerError)
        self.assertEqual(
            failure.getErrorMessage(), "builtins.ZeroDivisionError: nothing"
        )

    def test_many_events_arrive_in_their_order(self):
        for number in range(50):
            self.log.debug("{number}", number=number)
        self.end(97)
        self.assertEqual(
            [formatEvent(event) for event in self.events], [str(n) for n in range(50)]
        )

    def test_an_event_that_was_cut_is_logged_as_it_is(self):
        self.log.info("one")
        os.write(self.writer, b'{"time": 17')
        self.end()
        self.assertEqual(
            [formatEvent(event) for event in self.events],
            ["one", 'worker 3 left an incomplete line: {"time": 17'],
        )

    def test_a_worker_without_a_supervisor_logs_nowhere(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        observer_of(WorkerLogs.of(None).setup(writer), 3)({**PLAIN, "a": "nobody"})
        self.end()
        self.assertEqual(self.events, [])

    def test_what_the_interpreter_says_is_logged(self):
        output = Output(3)
        for piece in (b"Fatal er", b"ror\nmore", b"\n", b"end"):
            output.received(piece)
        output.ended()
        self.end()
        self.assertEqual(
            [formatEvent(event) for event in self.events],
            ["worker 3: Fatal error", "worker 3: more", "worker 3: end"],
        )


class LineTests(WorkerLogTestCase):
    """A log of the supervisor that is lines in a file."""

    @given(st.lists(EVENTS, max_size=3), st.integers(1, 50))
    @example([{**PLAIN, "log_failure": Failure(ValueError("\xe4"))}], 7)
    @example([{**PLAIN, "worker": "theirs", "level": "x", "b": "\udcff\u20ac"}], 1)
    @example([{**PLAIN, "log_format": ""}, {**PLAIN, "log_format": "x\n\ny"}], 1)
    def test_lines_are_those_that_the_events_would_make(self, events, size):
        events = [{**PLAIN, **event} for event in events]
        for event in events:
            event["log_time"] = event["log_time"] or 1.5
        for make in (text_observer, json_observer):
            found = []
            for is_relayed in (True, False):
                file = io.BytesIO()
                observer = make(file)
                self.connect(None if is_relayed else observer)
                for event in events:
                    self.worker(event)
                with patch.object(_log, "globalLogPublisher", observer):
                    self.end(size)
                found.append(file.getvalue())
            self.assertEqual(found[0], found[1])

    def test_a_line_is_that_of_one_process_with_the_number(self):
        ours, theirs = io.StringIO(), io.StringIO()
        self.connect(text_observer(ours))
        event = {**PLAIN, "a": "two\nlines", "log_failure": Failure(ValueError())}
        self.worker(event)
        self.end()
        textFileLogObserver(theirs)({**event, "log_system": "worker 3: txbits#info"})
        self.assertEqual(ours.getvalue(), theirs.getvalue())

    def test_what_the_file_cannot_take_is_written_with_escapes(self):
        ascii_file = io.TextIOWrapper(buffer := io.BytesIO(), "ascii")
        log_file = LogFile.fromFullPath(self.mktemp())
        for file in (ascii_file, log_file):
            self.connect(text_observer(file))
            for path in ("a\udcff", "next"):
                self.log.info("{path}", path=path)
            self.end()
        log_file.close()
        for data in (buffer.getvalue(), Path(log_file.path).read_bytes()):
            lines = data.splitlines()
            self.assertTrue(lines[0].endswith(rb"[worker 3: txbits.x#info] a\udcff"))
            self.assertTrue(lines[1].endswith(b"[worker 3: txbits.x#info] next"))
        self.assertEqual(self.events, [])

    def test_the_lines_of_one_event_stay_together(self):
        file = io.StringIO()
        self.connect(text_observer(file))
        self.log.info("one\ntwo\nthree")
        data = os.read(self.reader, 65536)
        self.incoming.received(data[:-3])
        self.assertEqual(file.getvalue(), "")
        self.incoming.received(data[-3:])
        self.assertEqual(len(file.getvalue().splitlines()), 3)
        self.end()

    def test_an_event_may_be_longer_than_the_pipe(self):
        file = io.StringIO()
        self.connect(text_observer(file))

        def work():
            for text in ("x" * 600_000, "y"):
                self.log.info(text)
            os.close(self.writer)

        worker = Thread(target=work, daemon=True)
        worker.start()
        os.set_blocking(self.reader, True)
        while data := os.read(self.reader, 65536):
            self.incoming.received(data)
        worker.join()
        os.close(self.reader)
        first, second = file.getvalue().splitlines()
        self.assertTrue(first.endswith(" " + "x" * 600_000))
        self.assertTrue(second.endswith(" y"))

    def test_a_line_that_was_cut_is_logged_as_it_is(self):
        file = io.StringIO()
        self.connect(text_observer(file))
        self.log.info("one")
        os.write(self.writer, "2026 tw\xf6".encode()[:-1])
        self.end()
        self.assertEqual(len(file.getvalue().splitlines()), 1)
        self.assertEqual(
            [formatEvent(event) for event in self.events],
            ["worker 3 left an incomplete line: 2026 tw\ufffd"],
        )

    def test_a_file_that_fails_for_a_moment_loses_what_came_then(self):
        class Full(io.StringIO):
            is_full = True

            def write(self, text):
                if self.is_full:
                    raise OSError(28, "No space left on device")
                return super().write(text)

        file = Full()
        self.connect(text_observer(file))
        for text in ("a", "b"):
            self.log.info(text)
        self.incoming.received(os.read(self.reader, 65536))
        file.is_full = False
        self.log.info("c")
        self.end()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(
            [formatEvent(event) for event in self.events],
            ["cannot write 2 lines of the log of worker 3"],
        )
        self.assertTrue(file.getvalue().endswith("c\n"))
        self.assertEqual(file.getvalue().count("\n"), 1)


class JournalTests(WorkerLogTestCase):
    """A log of the supervisor that is systemd's journal."""

    def setUp(self):
        super().setUp()
        self.path = self.mktemp()
        self.output = io.StringIO()
        observer = JournalObserver(text_observer(self.output), self.path)
        self.addCleanup(observer._socket.close)
        self.connect(observer)
        self.addCleanup(self.worker._observer._socket.close)

    def test_a_worker_logs_there_itself(self):
        journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(journal.close)
        journal.bind(self.path)
        self.log.warn("{user} came", user="alice")
        self.end()
        self.assertEqual(
            entries(journal.recv(65536)),
            {
                "PRIORITY": "4",
                "SYSLOG_IDENTIFIER": "txbits",
                "MESSAGE": "alice came",
                "TXBITS_LOGGER": "txbits.x",
                "TXBITS_USER": "alice",
                "TXBITS_WORKER": "3",
            },
        )
        self.assertEqual(self.output.getvalue(), "")

    def test_what_the_journal_does_not_take_is_written_as_text(self):
        self.log.info("nobody listens")
        self.end()
        self.assertTrue(
            self.output.getvalue().endswith(
                " [worker 3: txbits.x#info] nobody listens\n"
            )
        )


class Collected(Incoming):
    """Keeps what came out of a pipe."""

    def __init__(self):
        super().__init__(3)
        self.data, self.sizes, self.has_ended = b"", [], False

    def received(self, data):
        self.data += data
        self.sizes.append(len(data))

    def pieces(self, whole):
        raise AssertionError("they are not looked for")

    def ended(self):
        self.has_ended = True


class PipeReaderTests(SynchronousTestCase):
    """``PipeReader``, with a clock."""

    def setUp(self):
        self.reader, self.writer = open_pipe()
        # A test is to fail, and not to wait, if the pipe could not be enlarged.
        os.set_blocking(self.writer, False)
        self.reactor, self.log = MemoryReactorClock(), Collected()
        self.pipe = PipeReader(self.reactor, self.reader, self.log)

    def write(self, data):
        os.write(self.writer, data)
        # What the reactor does.
        if self.is_watched():
            self.pipe.doRead()

    def is_watched(self):
        return self.pipe in self.reactor.getReaders()

    def end(self):
        os.close(self.writer)
        self.pipe.end()

    def test_the_reactor_can_read_from_it(self):
        verifyObject(IReadDescriptor, self.pipe)
        self.assertEqual(self.pipe.fileno(), self.reader)
        self.assertEqual(self.pipe.logPrefix(), "-")
        self.end()

    def test_a_line_that_comes_alone_is_read_at_once(self):
        for line in (b"one\n", b"two\n"):
            self.log.data = b""
            self.write(line)
            self.assertEqual(self.log.data, line)
            self.reactor.advance(1)
        self.end()

    def test_a_busy_pipe_is_read_from_time_to_time(self):
        for number in range(3):
            self.write(b"%d" % number)
        self.assertEqual(self.log.data, b"0")
        self.assertFalse(self.is_watched())
        self.reactor.advance(1)
        self.assertEqual(self.log.data, b"012")
        self.assertFalse(self.is_watched())
        self.reactor.advance(1)
        self.assertTrue(self.is_watched())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.end()

    def test_much_is_read_at_once_but_not_in_one_go(self):
        os.write(self.writer, b"x" * 150_000)
        self.pipe.doRead()
        self.assertEqual(self.log.sizes, [65_536])
        self.reactor.advance(0)
        self.assertEqual(self.log.sizes, [65_536, 65_536, 18_928])
        self.assertFalse(self.is_watched())
        self.end()

    def test_nothing_is_lost_at_the_end(self):
        for data in (b"one", b"x" * 200_000):
            self.write(data)
        self.end()
        self.assertEqual(len(self.log.data), 200_003)
        self.assertTrue(self.log.has_ended)
        self.assertFalse(self.is_watched())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertRaises(OSError, os.fstat, self.reader)

    def test_a_worker_that_closes_its_log_is_waited_for_in_peace(self):
        self.write(b"one")
        os.close(self.writer)
        self.reactor.advance(1)
        self.assertFalse(self.is_watched())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.pipe.end()
        self.assertEqual(self.log.data, b"one")

    def test_others_may_keep_the_end_of_a_worker_open(self):
        self.write(b"one")
        self.pipe.end()
        self.assertEqual(self.log.data, b"one")
        self.assertTrue(self.log.has_ended)
        os.close(self.writer)

    def test_a_failure_of_the_log_does_not_stop_reading(self):
        def fail(data):
            raise ZeroDivisionError("nothing")

        with patch.object(self.log, "received", fail):
            self.assertRaises(ZeroDivisionError, self.write, b"one")
        self.write(b"two")
        self.reactor.advance(1)
        self.assertEqual(self.log.data, b"two")
        self.end()

    def test_a_reactor_that_stops_may_forget_it(self):
        self.write(b"one")
        self.reactor.removeAll()
        self.pipe.connectionLost(Failure(ConnectionError()))
        self.end()
        self.assertEqual(self.log.data, b"one")


class OpenPipeTests(SynchronousTestCase):
    """``open_pipe``."""

    def open(self):
        ends = open_pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        return ends

    def test_only_the_worker_blocks(self):
        self.assertEqual([os.get_blocking(end) for end in self.open()], [False, True])

    def test_a_system_may_refuse_a_larger_one(self):
        def refuse(*arguments):
            raise PermissionError(1, "Operation not permitted")

        with patch.object(fcntl, "fcntl", refuse):
            reader, writer = self.open()
        os.write(writer, b"x")
        self.assertEqual(os.read(reader, 9), b"x")

    def test_a_system_may_have_only_one_size(self):
        with patch.object(fcntl, "F_SETPIPE_SZ", None):
            reader, writer = self.open()
        os.write(writer, b"x")
        self.assertEqual(os.read(reader, 9), b"x")


class WorkerLogsTests(SynchronousTestCase):
    """``WorkerLogs``."""

    def test_lines_are_copied_only_into_files_of_ours(self):
        file = io.StringIO()
        for observer in (text_observer(file), json_observer(file)):
            logs = WorkerLogs.of(observer)
            self.assertIs(logs.observer, observer)
            self.assertIsNone(logs.setup(9).journal)
        for other in (None, textFileLogObserver(file), LogPublisher()):
            self.assertIsNone(WorkerLogs.of(other).observer)

    def test_an_observer_keeps_its_format(self):
        logs = WorkerLogs.of(json_observer(io.StringIO()))
        event = {**PLAIN, "log_level": LogLevel.warn, "a": "x"}
        self.assertEqual(logs.setup(9).line(event), json_line(event))
