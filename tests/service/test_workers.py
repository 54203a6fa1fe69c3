"""
The parts of several workers, each for itself; real processes are in
``tests/integration/test_workers.py``.
"""

import errno
import io
import os
import pickle
import socket
import tempfile
from unittest.mock import patch

from attrs import define, evolve, field
from twisted.application.service import Application, IService
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.service.test_life import FakeServiceManager
from txbits._adopted import adopt
from txbits._ledger import Ledger
from txbits._workers import Worker
from txbits.errors import InvalidSetting
from txbits.service._channel import Channel, PeerFailed, read_first
from txbits.service._log_lines import text_observer
from txbits.service._reading import from_options
from txbits.service._reload import Line
from txbits.service._whole import ANSWER_WITHIN
from txbits.service._workers import _supervisor
from txbits.service._workers._log import WorkerLogs
from txbits.service._workers._member import Member, Shares
from txbits.service._workers._sockets import OpeningReactor, Sockets
from txbits.service._workers._supervisor import Supervisor
from txbits.service._workers._watch import INTERVAL, MOST_SILENT
from txbits.service.maker import supervise


class ChannelTests(SynchronousTestCase):
    """``Channel``, with both ends in memory."""

    def setUp(self):
        self.lost = []
        self.told = []
        self.later = Deferred()
        handlers = {
            "add": lambda one, other: one + other,
            "later": lambda: self.later,
            "refuse": self.refuse,
            "fail": self.fail_there,
            "tell": self.told.append,
        }
        self.here = Channel({}, lambda: self.lost.append("here"))
        self.there = Channel(handlers, lambda: self.lost.append("there"))
        for channel in (self.here, self.there):
            channel.makeConnection(StringTransport())

    def refuse(self):
        raise InvalidSetting("mount: must not be empty")

    def fail_there(self):
        raise ZeroDivisionError("nothing")

    def carry(self):
        """Deliver what both have written."""
        for one, other in ((self.here, self.there), (self.there, self.here)):
            written = one.transport.value()
            one.transport.clear()
            other.dataReceived(written)

    def test_an_answer_comes_back(self):
        answer = self.here.ask("add", 2, 3)
        self.carry()
        self.assertEqual(self.successResultOf(answer), 5)

    def test_answers_may_come_in_another_order(self):
        first, second = self.here.ask("later"), self.here.ask("add", "a", "b")
        self.carry()
        self.assertEqual(self.successResultOf(second), "ab")
        self.assertNoResult(first)
        self.later.callback({"sessions": 1})
        self.carry()
        self.assertEqual(self.successResultOf(first), {"sessions": 1})

    def test_what_is_told_has_no_answer(self):
        self.here.tell("tell", "x")
        self.carry()
        self.assertEqual(self.told, ["x"])
        self.assertEqual(self.there.transport.value(), b"")

    def test_a_wrong_setting_is_raised_where_it_was_asked_for(self):
        answer = self.here.ask("refuse")
        self.carry()
        error = self.failureResultOf(answer, InvalidSetting).value
        self.assertEqual(str(error), "mount: must not be empty")

    def test_a_bug_is_logged_there_and_told_here(self):
        answer = self.here.ask("fail")
        self.carry()
        self.assertIn(
            "fail: nothing", str(self.failureResultOf(answer, PeerFailed).value)
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_nobody_waits_for_one_who_is_gone(self):
        before = self.here.ask("later")
        self.here.connectionLost(Failure(ConnectionLost()))
        after = self.here.ask("later")
        self.here.tell("tell", "x")
        for answer in (before, after):
            self.failureResultOf(answer, ConnectionLost)
        self.assertEqual(self.lost, ["here"])

    def test_the_first_message_can_be_read_before_there_is_a_reactor(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.here.begin({"worker": 1})
        self.here.tell("stop")
        ours.sendall(self.here.transport.value())
        self.assertEqual(read_first(theirs), {"worker": 1})
        ours.close()
        self.assertNotEqual(theirs.recv(100), b"")
        self.assertRaises(EOFError, read_first, theirs)


class SocketsTests(SynchronousTestCase):
    """``OpeningReactor``: real sockets that nobody accepts from."""

    def open(self, count=3, port=0, interface="127.0.0.1", backlog=5):
        sockets = OpeningReactor(MemoryReactorClock(), count).listenTCP(
            port, Factory(), backlog, interface
        )
        self.addCleanup(sockets.stopListening)
        return sockets

    def test_each_worker_has_a_socket_of_one_address(self):
        for interface in ("127.0.0.1", "::1"):
            sockets = self.open(interface=interface)
            names = {sockets.of(number).getsockname() for number in range(3)}
            self.assertEqual(len(names), 1)
            self.assertEqual(len({sockets.of(n).fileno() for n in range(3)}), 3)
            self.assertFalse(sockets.is_shared)
            self.assertEqual(sockets.getHost().port, names.pop()[1])

    def test_nobody_can_connect_before_it_listens(self):
        sockets = self.open()
        address = ("127.0.0.1", sockets.getHost().port)
        self.assertRaises(ConnectionRefusedError, socket.create_connection, address)
        sockets.startListening()
        socket.create_connection(address).close()

    def test_a_port_that_workers_of_others_have_is_taken(self):
        port = self.open().getHost().port
        # Without listening sockets, SO_REUSEADDR lets everybody bind.
        other = self.open(port=port)
        other.startListening()
        error = self.assertRaises(CannotListenError, self.open, port=port)
        self.assertIn("in use", str(error.socketError))

    def test_connections_go_elsewhere_while_one_is_reopened(self):
        for interface in ("127.0.0.1", "::1"):
            sockets = self.open(interface=interface, backlog=100)
            sockets.startListening()
            address = sockets.getHost().host, sockets.getHost().port
            connections = [socket.create_connection(address) for _ in range(30)]
            sockets.reopen(1)
            connections += [socket.create_connection(address) for _ in range(30)]
            for one in connections:
                one.settimeout(0)
            # Those in its queue were dropped, unless the kernel gives them to others.
            self.assertFalse(any(map(self.is_dropped, connections[30:])))
            error = self.assertRaises(OSError, sockets.of(1).accept)
            self.assertEqual(error.errno, errno.EINVAL)
            self.assertEqual(sockets.of(1).getsockname()[:2], address)
            sockets.listen(1)
            # Each is for one of three, by chance.
            connections += [socket.create_connection(address) for _ in range(60)]
            sockets.of(1).accept()[0].close()
            for one in connections:
                one.close()

    def is_dropped(self, connection):
        try:
            return connection.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def test_a_unix_socket_is_shared_and_removed_at_the_end(self):
        path = os.path.relpath(self.mktemp())
        reactor = MemoryReactorClock()
        sockets = OpeningReactor(reactor, 3).listenUNIX(path, Factory(), mode=0o640)
        self.assertTrue(sockets.is_shared)
        self.assertIs(sockets.of(0), sockets.of(2))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o640)
        stopped = sockets.stopListening()
        reactor.advance(0)
        self.successResultOf(stopped)
        self.assertFalse(os.path.exists(path))

    def test_a_descriptor_is_kept_for_when_there_are_no_more(self):
        kept = []

        class Reservation:
            def reserve(self):
                kept.append(True)

        self.patch(tcp, "_reservedFD", Reservation())
        bound = socket.create_server(("127.0.0.1", 0))
        reactor = MemoryReactorClock()
        factory = Factory()
        factory.noisy = False
        port = adopt(reactor, bound.detach(), socket.AF_INET, factory)
        self.addCleanup(port.socket.close)
        self.assertEqual(kept, [True])

    def test_a_socket_of_systemd_keeps_its_number(self):
        bound = socket.create_server(("127.0.0.1", 0))
        reactor = OpeningReactor(MemoryReactorClock(), 3)
        sockets = reactor.adoptStreamPort(bound.fileno(), socket.AF_INET, Factory())
        self.addCleanup(sockets.stopListening)
        self.assertEqual(sockets.number, bound.fileno())
        address = bound.getsockname()
        bound.close()
        socket.create_connection(address).close()


class FakeMember:
    """A worker without a process; a test lets it start, answer and end."""

    def __init__(self, number, on_started, asked):
        self.number, self.on_started, self.asked = number, on_started, asked
        self.state, self.line, self.how, self.report = "starting", None, "", {}
        self.is_replaced, self.pid, self.is_there = False, 100 + number, True
        self.calls, self.answers, self.told = [], {}, {}
        self._ended = Deferred()

    @property
    def is_running(self):
        return self.state == "running" and self.is_there

    def start(self, reactor, worker, configuration, directory, shares):
        self.worker, self.configuration = worker, configuration
        self.shares = shares

    def ask(self, what, *arguments):
        self.calls.append(what)
        self.told[what] = arguments
        answer = self.answers.get(what, succeed({} if what == "report" else None))
        return answer() if callable(answer) else answer

    def ask_once(self, what):
        return self.ask(what)

    def tell(self, what, *arguments):
        self.calls.append(what)
        if what == "stop":
            self.end("ended with status 0")

    def kill(self):
        self.end("was killed by SIGKILL")

    def replace(self):
        self.is_replaced = True
        self.kill()

    def ended(self):
        return self._ended

    def has_started(self):
        self.state = "started"
        self.on_started(self)

    def end(self, how):
        if self.is_there:
            self.is_there, self.how = False, how
            self._ended.callback(None)


@define(eq=False, slots=False)
class FakeProcess:
    lines: list = field(factory=list)

    def fail(self, line):
        self.lines.append(line)

    def make_room(self, connections):
        """Needs none."""

    def settle(self):
        """Needs nothing."""

    def on_hangup(self, react):
        self.hang_up = react


@define(eq=False, slots=False)
class FakeSockets:
    """What no worker is to serve."""

    calls: list = field(factory=list)

    def startListening(self):
        self.calls.append("all listen")

    def listen(self, worker):
        self.calls.append(f"{worker} listens")

    def reopen(self, worker):
        self.calls.append(f"{worker} is reopened")

    def stopListening(self):
        """Needs nothing."""

    def getHost(self):
        raise AssertionError("it may be closed")


@define
class ListenerOf:
    """What the log tells of an endpoint."""

    description: str


@define(eq=False)
class FakeListener:
    """An endpoint that opens when a test wants it."""

    outcomes: list
    listener: object = None

    def open(self):
        outcome = self.outcomes.pop(0)
        return fail(outcome) if isinstance(outcome, Exception) else outcome


class SupervisorTests(SynchronousTestCase):
    """``Supervisor``, with workers that are none, and a clock."""

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.members = []
        self.patch(_supervisor, "Member", self.member)
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.configuration = evolve(
            from_options({"backend": f"disk:{self.mktemp()}"}), workers=2, listen=()
        )
        self.process, self.manager = FakeProcess(), FakeServiceManager([])
        self.service = Supervisor(
            self.reactor,
            self.process,
            self.configuration,
            [],
            None,
            self.manager,
            lambda function: succeed(function()),
        )
        self.addCleanup(self.stop)

    def stop(self):
        if self.service.running:
            return self.successResultOf(self.service.stopService())
        return None

    def member(self, number, on_started, asked):
        self.members.append(FakeMember(number, on_started, asked))
        return self.members[-1]

    def start(self):
        self.service.startService()
        self.reactor.run()

    def open(self):
        self.start()
        for member in self.members:
            member.has_started()

    def lines(self):
        return [formatEvent(event) for event in self.events]

    def test_it_is_a_service(self):
        self.assertTrue(verifyObject(IService, self.service))

    def test_workers_make_the_lines_of_its_log(self):
        observer = text_observer(io.StringIO())
        self.service.make_observer = lambda: observer
        application = Application("txbits")
        self.service.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), observer)
        self.start()
        for member in self.members:
            self.assertIs(member.shares.logs.observer, observer)

    def test_none_accepts_before_all_have_started(self):
        self.start()
        first, second = self.members
        self.assertEqual(
            [one.worker for one in self.members], [Worker(0, 2), Worker(1, 2)]
        )
        first.has_started()
        self.assertEqual((first.calls, second.calls), ([], []))
        self.assertEqual(self.manager.status(), "starting")
        self.assertTrue(self.manager.is_well())
        second.has_started()
        for member in self.members:
            self.assertEqual(member.calls[0], "listen")
            self.assertEqual(member.state, "running")
        self.assertEqual(self.manager.told, ["ready"])

    def test_a_worker_that_cannot_start_ends_the_service(self):
        self.start()
        self.members[1].line = "txbits: root: cannot be used"
        self.members[1].end("ended with status 1")
        self.members[0].end("ended with status 1")
        self.assertEqual(self.process.lines, ["txbits: root: cannot be used"])
        self.assertEqual(self.manager.told, ["txbits: root: cannot be used"])

    def test_a_worker_that_dies_while_it_starts_ends_the_service(self):
        self.start()
        self.members[0].end("was killed by SIGKILL")
        (line,) = self.process.lines
        self.assertIn("worker 0 was killed by SIGKILL before", line)

    def test_a_worker_that_dies_as_soon_as_it_accepts_has_a_successor(self):
        self.start()
        first, second = self.members
        first.answers["listen"] = listening = Deferred()
        first.has_started()
        second.has_started()
        self.assertEqual(self.manager.told, [])
        first.end("was killed by SIGKILL")
        listening.errback(ConnectionLost())
        self.assertEqual(self.process.lines, [])
        self.assertEqual(self.manager.told, ["ready"])
        self.reactor.advance(0.1)
        self.members[2].has_started()
        self.assertEqual(self.members[2].state, "running")
        self.assertTrue(self.manager.is_well())

    def test_a_stop_while_workers_begin_to_accept(self):
        self.service.listeners = [listener := FakeListener([succeed(FakeSockets())])]
        self.start()
        first, second = self.members
        first.answers["listen"] = listening = Deferred()
        first.has_started()
        second.has_started()
        self.successResultOf(self.service.stopService())
        listening.errback(ConnectionLost())
        self.assertEqual(listener.outcomes, [])
        self.assertEqual((self.process.lines, self.flushLoggedErrors()), ([], []))
        self.assertNotIn("ready", self.manager.told)

    def test_the_port_of_workers_that_are_about_to_end_is_waited_for(self):
        fault = InvalidSetting("listen: cannot listen: Address already in use")
        fault.__cause__ = CannotListenError(
            "", 80, OSError(errno.EADDRINUSE, "Address already in use")
        )
        self.service.listeners = [listener := FakeListener([fault] * 3)]
        listener.outcomes.append(succeed(FakeSockets()))
        self.start()
        self.reactor.advance(0.1)
        self.assertEqual(self.members, [])
        self.reactor.advance(0.1)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.members), 2)
        self.assertEqual(self.process.lines, [])

    def test_the_port_of_the_operator_is_waited_for_too(self):
        fault = InvalidSetting("admin-listen: cannot listen: Address already in use")
        fault.__cause__ = CannotListenError(
            "", 9100, OSError(errno.EADDRINUSE, "Address already in use")
        )
        sockets = FakeSockets()
        sockets.getHost = lambda: IPv4Address("TCP", "127.0.0.1", 9100)
        self.service.admin = FakeListener(
            [fault, succeed(sockets)], ListenerOf("tcp:9100")
        )
        self.start()
        self.assertEqual((self.members, self.process.lines), ([], []))
        self.reactor.advance(0.1)
        self.assertEqual(len(self.members), 2)
        self.assertEqual(sockets.calls, ["all listen"])

    def test_the_port_of_another_program_is_not_waited_for_for_long(self):
        fault = InvalidSetting("listen: cannot listen: Address already in use")
        fault.__cause__ = CannotListenError(
            "", 80, OSError(errno.EADDRINUSE, "Address already in use")
        )
        self.service.listeners = [FakeListener([fault] * 100)]
        self.start()
        self.reactor.pump([0.1] * 49)
        self.assertEqual(self.process.lines, [])
        self.reactor.pump([0.1] * 3)
        self.assertEqual(
            self.process.lines,
            ["txbits: listen: cannot listen: Address already in use"],
        )

    def test_a_worker_that_dies_has_a_successor_later_each_time(self):
        self.open()
        self.members[0].end("was killed by SIGSEGV")
        self.assertIn(
            "worker 0, pid 100, was killed by SIGSEGV; the next one starts in 0.1 s",
            self.lines(),
        )
        self.assertEqual(len(self.members), 2)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.members), 3)
        self.members[2].line = "txbits: no space"
        self.members[2].end("ended with status 1")
        self.assertIn(
            "worker 0, pid 100, ended with status 1; the next one starts in 0.2 s: "
            "txbits: no space",
            self.lines(),
        )
        self.reactor.advance(0.2)
        self.members[3].has_started()
        self.assertEqual(self.members[3].state, "running")
        self.reactor.advance(60)
        self.members[3].end("was killed by SIGKILL")
        self.assertIn("starts in 0.1 s", self.lines()[-1])
        for _ in range(12):
            self.reactor.advance(30)
            self.members[-1].end("ended with status 1")
        self.assertIn("starts in 30.0 s", self.lines()[-1])
        self.assertEqual(self.process.lines, [])

    def test_connections_do_not_wait_for_a_worker_that_is_away_for_long(self):
        sockets = FakeSockets()
        sockets.getHost = lambda: UNIXAddress("uploads")
        self.service.listeners = [
            FakeListener([succeed(sockets)], ListenerOf("unix:uploads"))
        ]
        self.open()
        sockets.calls.clear()
        pauses = (0.1, 0.2, 0.4, 0.8, 1.6)
        for pause in pauses:
            self.assertEqual(sockets.calls, [])
            self.members[-1].end("was killed by SIGSEGV")
            self.reactor.advance(pause)
        self.assertEqual(sockets.calls, ["1 is reopened"])
        self.members[-1].has_started()
        self.assertEqual(sockets.calls[1:], ["1 listens"])

    def test_connections_of_the_dead_are_forgotten_without_blocking(self):
        """For example, while a worker that was stopped has the lock of the ledger."""
        self.open()
        calls = []

        def in_thread(function):
            calls.append((function, done := Deferred()))
            return done

        self.service.in_thread = in_thread
        for member in self.members[:2]:
            member.end("was killed by SIGKILL")
        self.reactor.advance(60)
        self.assertEqual(len(self.members), 2)
        for number in range(2):
            # One at a time: the lock is this process's.
            self.assertEqual(len(calls), number + 1)
            function, done = calls[number]
            done.callback(function())
            self.reactor.advance(0.1)
            self.assertEqual(self.members[-1].number, number)
        self.service.in_thread = lambda function: succeed(function())

    def test_the_manager_knows_who_runs(self):
        self.open()
        told = self.members[1].calls.count("elsewhere")
        self.members[0].end("was killed by SIGKILL")
        self.assertEqual(self.members[1].calls.count("elsewhere"), told + 1)
        self.assertTrue(self.manager.status().startswith("1 of 2 workers running; "))
        self.assertFalse(self.manager.is_well())
        self.reactor.advance(0.1)
        self.members[2].has_started()
        self.assertEqual(self.members[1].calls.count("elsewhere"), told + 2)
        self.assertTrue(self.manager.is_well())
        self.members[2].answers["report"] = report = Deferred()
        self.reactor.pump([INTERVAL] * 2)
        self.assertFalse(self.manager.is_well())
        report.callback({})
        del self.members[2].answers["report"]
        self.reactor.pump([INTERVAL] * 2)
        self.assertTrue(self.manager.is_well())

    def test_workers_know_within_seconds_what_is_wrong_with_others(self):
        self.open()
        self.assertEqual(self.members[1].told["elsewhere"], ([],))
        self.members[0].answers["report"] = succeed({"obstacles": ["/: full"]})
        self.reactor.advance(5)
        self.assertEqual(self.members[1].told["elsewhere"], (["worker 0: /: full"],))
        self.assertEqual(self.members[0].told["elsewhere"], ([],))
        told = self.members[1].calls.count("elsewhere")
        self.reactor.advance(5)
        self.assertEqual(self.members[1].calls.count("elsewhere"), told)
        self.members[0].end("was killed by SIGKILL")
        self.assertEqual(
            self.members[1].told["elsewhere"], (["worker 0 is not running"],)
        )

    def asked(self, *words):
        """What a worker gets that asks about the whole service."""
        return self.members[0].asked[words[0]](*words[1:])

    def test_a_question_to_everyone_tells_who_has_not_answered(self):
        self.open()
        one, other = self.members
        one.answers["glance"], other.answers["glance"] = succeed("a"), Deferred()
        asked = self.asked("everyone", "glance")
        self.assertNoResult(asked)
        self.reactor.advance(ANSWER_WITHIN)
        self.assertEqual(
            self.successResultOf(asked), ({0: "a"}, {1: "does not answer"})
        )
        other.answers["glance"] = lambda: fail(PeerFailed("bug"))
        self.assertEqual(
            self.successResultOf(self.asked("everyone", "glance")),
            ({0: "a"}, {1: "failed to answer; see the log"}),
        )
        other.end("was killed by SIGKILL")
        self.reactor.advance(1)
        self.assertEqual(self.members[2].state, "starting")
        self.assertEqual(
            self.successResultOf(self.asked("everyone", "glance")),
            ({0: "a"}, {1: "is not running"}),
        )
        self.members[2].has_started()
        self.members[2].answers["glance"] = succeed("b")
        self.assertEqual(
            self.successResultOf(self.asked("everyone", "glance")),
            ({0: "a", 1: "b"}, {}),
        )

    def test_a_question_about_sessions_reaches_the_worker_that_it_is_for(self):
        self.open()
        self.members[1].answers["sessions"] = lambda: succeed({"good": {}})
        asked = self.asked("one", 1, {"act": "get"})
        self.assertEqual(self.successResultOf(asked), ({"good": {}}, None))
        self.assertNotIn("sessions", self.members[0].calls)
        self.members[1].answers["sessions"] = lambda: fail(ConnectionLost())
        self.assertEqual(
            self.successResultOf(self.asked("one", 1, {})), (None, "is not running")
        )
        self.members[1].end("was killed by SIGKILL")
        self.assertEqual(
            self.successResultOf(self.asked("one", 1, {})), (None, "is not running")
        )

    def test_a_stop_reaches_all_and_starts_none(self):
        self.open()
        self.members[0].end("was killed by SIGKILL")
        stopped = self.service.stopService()
        self.successResultOf(stopped)
        self.assertEqual(self.members[1].calls[-1], "stop")
        self.reactor.advance(60)
        self.assertEqual(len(self.members), 2)
        self.assertEqual(self.manager.told[-2:], ["stopping", "stop"])

    def test_what_does_not_stop_is_killed(self):
        self.open()
        self.members[0].tell = lambda what: None
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        self.reactor.advance(36)
        self.successResultOf(stopped)
        self.assertEqual(self.members[0].how, "was killed by SIGKILL")

    def reload(self, prepare=(None, None), apply=(None, None), reread=None):
        """SIGHUP; ``None`` is success, and a Deferred an answer that comes later."""
        self.new = evolve(self.configuration, health_path="/new")
        self.service.configuration = evolve(
            self.configuration, reread=reread or (lambda: self.new)
        )
        line = Line("info", "settings reloaded: {changes}", {"changes": "x"})
        for member, ready, changed in zip(self.members, prepare, apply, strict=False):
            if not isinstance(ready, Deferred):
                ready = succeed(None) if ready is None else fail(ready)
            member.answers["prepare"] = ready
            member.answers["apply"] = (
                succeed((self.new, [line])) if changed is None else fail(changed)
            )
        self.process.hang_up()

    def test_all_change_if_all_can(self):
        self.open()
        self.reload()
        for member in self.members:
            self.assertEqual(member.calls[-3:], ["prepare", "apply", "certificates"])
        self.assertIs(self.service.configuration, self.new)
        self.assertEqual(self.lines().count("settings reloaded: x"), 1)
        self.assertEqual(self.manager.told, ["ready", "reloading", "ready"])

    def test_none_changes_if_one_cannot(self):
        self.open()
        self.reload(prepare=(None, InvalidSetting("keys: cannot be read")))
        self.assertEqual(
            self.members[0].calls[-3:], ["prepare", "abandon", "certificates"]
        )
        # It forgets nothing, but counts the failure.
        self.assertEqual(
            self.members[1].calls[-3:], ["prepare", "abandon", "certificates"]
        )
        self.assertIsNone(self.service.configuration.health_path)
        self.assertIn(
            "reload failed, keeping the old settings: keys: cannot be read",
            self.lines(),
        )

    def test_a_file_with_a_mistake_reaches_no_worker(self):
        def reread():
            raise InvalidSetting("x.toml: not valid TOML")

        self.open()
        self.reload(reread=reread)
        for member in self.members:
            self.assertNotIn("prepare", member.calls)
            self.assertEqual(member.calls[-2:], ["abandon", "certificates"])
        self.assertIn("x.toml: not valid TOML", self.lines()[-1])

    def test_who_dies_meanwhile_keeps_nobody_back(self):
        self.open()
        self.reload(prepare=(ConnectionLost(), None))
        self.assertIs(self.service.configuration, self.new)
        self.reactor.advance(0)
        self.assertIs(self.members[2].configuration, self.new)

    def test_who_does_not_answer_keeps_nobody_back_for_long(self):
        self.open()
        preparing = Deferred()
        self.reload(prepare=(preparing, None))
        self.members[1].end("was killed by SIGSEGV")
        reports = self.members[0].answers
        reports["report"] = report = Deferred()
        self.reactor.pump([INTERVAL] * MOST_SILENT)
        self.assertTrue(self.members[0].is_there)
        # It answers after all.
        report.callback({})
        reports["report"] = Deferred()
        self.reactor.pump([INTERVAL] * MOST_SILENT)
        self.assertEqual(len(self.members), 2)
        self.reactor.advance(INTERVAL)
        self.assertFalse(self.members[0].is_there)
        self.assertIn(
            "worker 0, pid 100, has not answered for 60 s, killing it; stored data is "
            "safe",
            self.lines(),
        )
        preparing.errback(ConnectionLost())
        self.reactor.pump([0.1] * 3)
        self.assertEqual({one.number for one in self.members[2:]}, {0, 1})

    def test_who_does_not_change_is_replaced(self):
        self.open()
        self.reload(apply=(None, PeerFailed("bug")))
        self.assertEqual(self.members[1].how, "was killed by SIGKILL")
        self.reactor.advance(0)
        self.assertEqual(self.members[2].number, 1)
        self.assertIs(self.members[2].configuration, self.new)
        self.assertNotIn("SIGKILL", "".join(self.lines()))

    def test_who_is_still_starting_is_started_again(self):
        self.open()
        self.members[0].end("was killed by SIGKILL")
        self.reactor.advance(0.1)
        self.members.pop(0)
        self.members.reverse()
        starting = self.members[0]
        self.reload()
        self.assertNotIn("prepare", starting.calls)
        self.assertTrue(starting.is_replaced)
        self.assertIs(self.members[-1].configuration, self.new)

    def test_a_signal_before_all_have_started_waits(self):
        self.start()
        self.reload()
        self.assertEqual(self.members[0].calls, [])
        for member in self.members:
            member.has_started()
        self.assertIn("apply", self.members[0].calls)

    def test_a_server_without_a_file_reads_certificates_only(self):
        self.open()
        self.process.hang_up()
        self.assertEqual(self.members[0].calls[-1], "certificates")
        self.assertNotIn("prepare", self.members[0].calls)


class HiddenTests(SynchronousTestCase):
    """Sockets for who has a descriptor."""

    def test_they_can_be_connected_to_and_leave_nothing_behind(self):
        folder = os.path.relpath(self.mktemp())
        os.mkdir(folder)
        self.patch(_supervisor, "_IN_MEMORY", folder)
        self.make_some(folder)

    def test_another_place_will_do(self):
        folder = os.path.relpath(self.mktemp())
        os.mkdir(folder)
        self.patch(_supervisor, "_IN_MEMORY", os.path.join(folder, "none"))
        self.patch(tempfile, "tempdir", folder)
        self.make_some(folder)

    def make_some(self, folder):
        """Make two, connect to them, and look what is left of them."""
        sockets, doors = _supervisor._hidden(2)
        self.addCleanup(sockets.stopListening)
        for door in doors:
            self.addCleanup(os.close, door)
        self.assertEqual(os.listdir(folder), [])
        for number, door in enumerate(doors):
            name = sockets.of(number).getsockname()
            self.assertEqual(os.path.dirname(os.path.dirname(name)), folder)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"/proc/self/fd/{door}")
                there, _ = sockets.of(number).accept()
                there.close()


class MemberTests(SynchronousTestCase):
    """``Member``, with a reactor that starts no process."""

    def start(self, reactor):
        member = Member(1, lambda member: None, {})
        pair = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        relays, adopted = Sockets(pair), Sockets([socket.socket()], number=4)
        ledger = Ledger.create(2)
        for close in (relays.stopListening, adopted.stopListening, ledger.close):
            self.addCleanup(close)
        shares = Shares(
            listeners=[adopted],
            admin=None,
            relays=relays,
            doors=tuple(one.fileno() for one in pair),
            secret=b"secret",
            ledger=ledger,
            form_key=b"key",
            logs=WorkerLogs.of(None),
        )
        member.start(reactor, Worker(1, 2), from_options({}), "/", shares)
        self.ledger = ledger
        return member

    def test_a_worker_inherits_its_sockets_and_is_addressed_by_no_manager(self):
        variables = {
            "NOTIFY_SOCKET": "@x",
            "WATCHDOG_USEC": "1",
            "LISTEN_FDNAMES": "a:b:c",
        }
        self.enterContext(patch.dict(os.environ, variables))
        started = []

        class Reactor(MemoryReactorClock):
            def spawnProcess(self, member, program, arguments, variables, **more):
                started.append((arguments, variables, more["childFDs"]))
                raise BlockingIOError(11, "Resource temporarily unavailable")

        reactor = Reactor()
        member = self.start(reactor)
        ((arguments, variables, descriptors),) = started
        # Those of systemd are 3 and 4, of which only the last is used.
        self.assertEqual(arguments[-1], "5")
        self.assertEqual(sorted(descriptors), [1, 2, *range(4, 11)])
        self.assertEqual(descriptors[10], self.ledger.fd)
        self.assertEqual(variables["LISTEN_FDS"], "2")
        self.assertEqual(variables["LISTEN_FDNAMES"], "a:b")
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_PID"):
            self.assertNotIn(name, variables)
        self.assertEqual(
            member.line,
            "txbits: cannot start a process: Resource temporarily unavailable",
        )
        self.successResultOf(member.ended())
        self.assertFalse(member.is_there)
        self.assertEqual(reactor.getReaders(), [])
        member.tell("stop")

    def test_one_that_does_not_answer_is_asked_once_by_all_who_wait(self):
        member = Member(1, lambda member: None, {})
        member._channel.makeConnection(StringTransport())
        asked = [member.ask_once("glance") for _ in range(3)]
        said = member._channel.transport.value()
        asked.append(member.ask_once("glance"))
        self.assertEqual(member._channel.transport.value(), said)
        asked.pop().addErrback(lambda _: None).cancel()
        member._channel.connectionLost(Failure(ConnectionLost()))
        for one in asked:
            self.failureResultOf(one, ConnectionLost)


class SuperviseTests(SynchronousTestCase):
    """``supervise``: mistakes are found before anything starts."""

    def supervise(self, **options):
        configuration = from_options({"workers": 2, **options})
        return supervise(configuration, MemoryReactorClock())

    def refused(self, **options):
        return str(self.assertRaises(InvalidSetting, self.supervise, **options))

    def test_backends_of_one_process(self):
        self.assertIn("--backend: memory:: ", self.refused(backend="memory:"))

    def test_endpoints(self):
        self.assertIn(
            "--listen: tcp:http: ",
            self.refused(backend=f"disk:{self.mktemp()}", listen=["tcp:http"]),
        )

    def test_settings_can_be_passed_on(self):
        configuration = self.supervise(backend=f"disk:{self.mktemp()}").configuration
        self.assertEqual(pickle.loads(pickle.dumps(configuration)), configuration)


class SettingTests(SynchronousTestCase):
    """``workers``."""

    def workers(self, value):
        return from_options({"workers": value}).workers

    def test_numbers_and_auto(self):
        self.assertEqual(self.workers(7), 7)
        self.assertEqual(self.workers("auto"), len(os.sched_getaffinity(0)))
        self.assertEqual(from_options({}).workers, 1)

    def test_others_are_refused(self):
        for wrong in (0, 257, True, "many", 1.5):
            error = self.assertRaises(InvalidSetting, self.workers, wrong)
            self.assertIn("--workers: must be a number of processes", str(error))
