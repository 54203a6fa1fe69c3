"""
The life of the service: everything starts, then it listens, then it stops in time.

Directories, endpoints and the process are fakes that write down what happens to them,
all into one list, since the order is the subject.
"""

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txbits._version import versions
from txbits.admin import Health
from txbits.admin.delay import LoopDelay
from txbits.errors import BackendError
from txbits.interfaces import IReloadable
from txbits.service._life import AdminListener, Listener, UploadService
from txbits.service._served import Served
from txbits.service.settings import Directory


@define(eq=False)
class Manager:
    name: str
    events: list
    starting: Deferred = field(factory=lambda: succeed(None))
    stopping: Deferred = field(factory=lambda: succeed(None))
    open_sessions: int = 0

    def start(self):
        self.events.append(f"start {self.name}")
        return self.starting

    def stop(self):
        self.events.append(f"stop {self.name}")
        return self.stopping


@implementer(IListeningPort)
@define(eq=False)
class Port:
    name: str
    events: list
    address: object = None

    def getHost(self):
        return self.address or self.name

    def startListening(self):
        raise NotImplementedError

    def stopListening(self):
        self.events.append(f"close {self.name}")
        return succeed(None)


@implementer(IReloadable)
class SecurePort(Port):
    def reload(self):
        self.events.append(f"reload {self.name}")
        return succeed("")


@implementer(IStreamServerEndpoint)
@define(eq=False)
class Endpoint:
    name: str
    events: list
    error: Exception | None = None
    address: object = None
    port: type = Port

    def listen(self, factory):
        self.events.append(f"listen {self.name}")
        if self.error is not None:
            return fail(self.error)
        return succeed(self.port(self.name, self.events, self.address))


@define(eq=False)
class Channel:
    events: list
    site: "Site"

    def loseConnection(self):
        self.events.append("hang up")


@define(eq=False)
class Site:
    channels: set = field(factory=set)


@define(eq=False, slots=False)
class Process:
    events: list
    line: str | None = None

    def fail(self, line):
        self.events.append("fail")
        self.line = line

    def end_by_force(self, seconds):
        self.events.append("end by force")

    def make_room(self, connections):
        self.events.append(f"room for {connections}")

    def settle(self):
        self.events.append("settle")

    def on_hangup(self, react):
        self.hang_up = react


@define(eq=False)
class Reloader:
    events: list
    stopping: Deferred = field(factory=lambda: succeed(None))
    reading: Deferred = field(factory=lambda: succeed(None))

    def hangup(self):
        self.events.append("reload")

    def over(self):
        return self.reading

    def stop(self):
        self.events.append("stop reloading")
        return self.stopping


@define(eq=False)
class FakeServiceManager:
    told: list
    status: object = None
    is_well: object = None

    def start(self, status, is_well=None):
        self.status, self.is_well = status, is_well

    def ready(self):
        self.told.append("ready")

    def reloading(self):
        self.told.append("reloading")

    def stopping(self):
        self.told.append("stopping")

    def failed(self, line):
        self.told.append(line)

    def stop(self):
        self.told.append("stop")


@define(eq=False)
class Resource:
    manager: Manager


def is_serious(event):
    """Whether an event is a warning, or worse."""
    return event["log_level"] >= LogLevel.warn


def served(mount, backend, manager, clock):
    directory = Directory(where="--", mount=mount, backend=backend)
    return Served(directory, Resource(manager), clock)


class LifeTests(SynchronousTestCase):
    """One service, two directories, two endpoints."""

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.events = []
        self.logged = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        self.process = Process(self.events)
        self.site = Site()
        self.a = Manager("a", self.events)
        self.b = Manager("b", self.events)
        self.one = Endpoint("one", self.events)
        self.two = Endpoint("two", self.events)
        self.health = Health(list)
        self.told = []
        self.service_manager = FakeServiceManager(self.told)
        self.service = UploadService(
            self.reactor,
            self.process,
            self.site,
            [
                served("/a", "x", self.a, self.reactor),
                served("/b", "y", self.b, self.reactor),
            ],
            [
                Listener("--listen: one", "one", self.one),
                Listener("--listen: two", "two", self.two),
            ],
            42,
            Reloader(self.events),
            self.health,
            self.service_manager,
            shutdown_timeout=30,
        )

    def start(self):
        self.service.privilegedStartService()
        self.service.startService()
        self.reactor.run()

    def stop(self):
        self.events.clear()
        stopped = self.service.stopService()
        self.reactor.advance(0)
        return stopped

    def test_nothing_starts_before_the_reactor_runs(self):
        self.service.privilegedStartService()
        self.service.startService()
        self.assertEqual(self.events, [])

    def test_listens_when_all_directories_have_started(self):
        self.b.starting = Deferred()
        self.start()
        self.assertEqual(self.events, ["room for 42", "start a", "start b"])
        self.b.starting.callback(None)
        self.assertEqual(self.events[3:], ["listen one", "listen two", "settle"])

    def test_listening_is_logged_with_fields(self):
        self.start()
        events = [e for e in self.logged if "listening" in e.get("log_format", "")]
        self.assertEqual(
            [(e["address"], e["endpoint"], e["mounts"], e["backends"]) for e in events],
            [
                ("one", "one", "/a, /b", ["x", "y"]),
                ("two", "two", "/a, /b", ["x", "y"]),
            ],
        )

    def test_a_backend_that_cannot_start_fails_the_process_and_nothing_listens(self):
        self.b.starting = fail(BackendError("y is in use;\nstop the other server"))
        self.start()
        self.assertEqual(
            self.process.line,
            "txbits: --backend: y: y is in use; stop the other server",
        )
        self.assertEqual(self.events, ["room for 42", "start a", "start b", "fail"])
        self.assertEqual([e for e in self.logged if is_serious(e)], [])

    def test_what_has_started_is_stopped_after_a_failure(self):
        self.b.starting = fail(BackendError("no"))
        self.start()
        self.successResultOf(self.stop())
        self.assertEqual(self.events, ["stop reloading", "stop a"])

    def test_a_port_in_use_fails_the_process_and_closes_the_others(self):
        self.two.error = CannotListenError(
            "any", 80, OSError(98, "Address already in use")
        )
        self.start()
        self.assertEqual(
            self.process.line,
            "txbits: --listen: two: cannot listen: Address already in use",
        )
        self.assertNotIn("settle", self.events)
        self.successResultOf(self.stop())
        self.assertEqual(
            self.events, ["close one", "stop reloading", "stop a", "stop b"]
        )

    def test_a_port_that_needs_a_privilege_says_which(self):
        self.two.error = CannotListenError(
            "any", 443, PermissionError(13, "Permission denied")
        )
        self.start()
        self.assertEqual(
            self.process.line,
            "txbits: --listen: two: cannot listen: Permission denied; a port below "
            "1024 requires CAP_NET_BIND_SERVICE (AmbientCapabilities= in a systemd "
            "unit)",
        )

    def test_an_unforeseen_error_fails_the_process_and_is_logged(self):
        self.a.starting = fail(RuntimeError("what"))
        self.start()
        self.assertEqual(self.process.line, "txbits: what; the log has the traceback")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_stops_accepting_before_anything_else_stops(self):
        self.start()
        self.successResultOf(self.stop())
        self.assertEqual(
            self.events,
            ["close one", "close two", "stop reloading", "stop a", "stop b"],
        )

    def test_directories_stop_at_the_same_time(self):
        self.a.stopping = Deferred()
        self.start()
        stopped = self.stop()
        self.assertIn("stop b", self.events)
        self.assertNoResult(stopped)
        self.a.stopping.callback(None)
        self.successResultOf(stopped)

    def test_a_directory_that_cannot_stop_is_logged_and_the_others_are_waited_for(self):
        self.a.stopping = fail(BackendError("stuck"))
        self.b.stopping = Deferred()
        self.start()
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.b.stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(BackendError)), 1)

    def test_stopping_takes_no_longer_than_its_bound(self):
        self.a.stopping = Deferred()
        self.start()
        stopped = self.stop()
        self.reactor.advance(29.9)
        self.assertNoResult(stopped)
        self.reactor.advance(0.2)
        self.successResultOf(stopped)
        self.assertEqual(self.events[-1], "end by force")

    def test_connections_are_closed_when_their_answers_are_written(self):
        self.start()
        self.site.channels.add(Channel(self.events, self.site))
        self.a.stopping = Deferred()
        stopped = self.stop()
        self.assertNotIn("hang up", self.events)
        self.a.stopping.callback(None)
        self.assertEqual(self.events[-1], "hang up")
        self.assertNoResult(stopped)
        self.site.channels.clear()
        self.reactor.advance(0.1)
        self.successResultOf(stopped)

    def test_connections_whose_peers_do_not_read_are_not_waited_for_long(self):
        self.start()
        self.site.channels.add(Channel(self.events, self.site))
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.reactor.pump([0.05] * 60)
        self.successResultOf(stopped)
        self.assertNotIn("end by force", self.events)

    def test_stopping_while_starting_listens_on_nothing(self):
        self.a.starting = Deferred()
        self.start()
        stopped = self.stop()
        self.successResultOf(stopped)
        self.a.starting.callback(None)
        self.assertEqual(self.events, ["stop reloading"])
        self.assertIsNone(self.process.line)

    def test_stopping_ends_the_start_of_a_directory_and_stops_the_others(self):
        ended = []
        self.b.starting = Deferred(ended.append)
        self.start()
        stopped = self.stop()
        self.assertEqual(ended, [self.b.starting])
        self.successResultOf(stopped)
        self.assertEqual(self.events, ["stop reloading", "stop a"])

    def test_a_start_that_takes_long_to_end_is_waited_for(self):
        self.a.starting = Deferred(lambda _: None)
        self.a.starting.addErrback(lambda _: ending)
        ending = Deferred()
        self.start()
        stopped = self.stop()
        self.assertNoResult(stopped)
        ending.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.events, ["stop reloading", "stop a"])

    def test_stopping_does_not_wait_for_a_start_without_end(self):
        self.a.starting = Deferred(lambda _: None)
        self.a.starting.addErrback(lambda _: Deferred())
        self.start()
        stopped = self.stop()
        self.reactor.advance(31)
        self.successResultOf(stopped)
        self.assertNotIn("listen one", self.events)

    def test_stopped_before_the_reactor_ran_nothing_starts(self):
        self.service.startService()
        self.successResultOf(self.stop())
        self.reactor.run()
        self.assertEqual(self.events, ["stop reloading"])

    def test_settings_are_read_again_at_a_hang_up(self):
        self.start()
        self.process.hang_up()
        self.process.hang_up()
        self.assertEqual(self.events[-3:], ["settle", "reload", "reload"])

    def test_certificates_are_read_again_at_a_hang_up(self):
        self.two.port = SecurePort
        self.start()
        self.process.hang_up()
        self.assertEqual(self.events[-3:], ["settle", "reload", "reload two"])

    def with_admin(self):
        """Give the service an operator's listener, on which nobody is connected."""
        endpoint = Endpoint("admin", self.events, port=SecurePort)
        self.service.admin = AdminListener(
            Listener("--admin-listen: x", "x", endpoint),
            Site(),
            [LoopDelay(self.reactor)],
        )
        return endpoint

    def test_the_operators_listener_is_the_first_and_the_last(self):
        self.with_admin()
        self.start()
        self.assertEqual(
            self.events[1:],
            [
                *("listen admin", "start a", "start b"),
                *("listen one", "listen two", "settle"),
            ],
        )
        self.successResultOf(self.stop())
        self.assertEqual(
            self.events,
            [
                *("close one", "close two", "stop reloading"),
                *("stop a", "stop b", "close admin"),
            ],
        )

    def test_an_operators_listener_that_cannot_listen_fails_the_process(self):
        self.with_admin().error = OSError(98, "Address already in use")
        self.start()
        self.assertEqual(
            self.process.line,
            "txbits: --admin-listen: x: cannot listen: Address already in use",
        )
        self.assertNotIn("start a", self.events)

    def test_certificates_of_the_operators_listener_are_read_again(self):
        self.with_admin()
        self.start()
        self.process.hang_up()
        self.assertEqual(self.events[-2:], ["reload", "reload admin"])

    def test_the_service_manager_is_told_what_happens(self):
        self.b.starting = Deferred()
        self.start()
        self.assertEqual((self.told, self.service_manager.status()), ([], "starting"))
        self.b.starting.callback(None)
        self.assertEqual(self.told, ["ready"])
        self.a.open_sessions, self.b.open_sessions = 2, 3
        status = self.service_manager.status()
        self.assertEqual(status, "5 sessions open, 0 connections")
        self.b.stopping = Deferred()
        stopped = self.stop()
        self.assertEqual(self.told[1:], ["stopping"])
        self.assertEqual(self.service_manager.status(), "stopping")
        self.b.stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.told[2:], ["stop"])

    def test_the_service_manager_is_told_why_the_start_fails(self):
        self.a.starting = fail(BackendError("no"))
        self.start()
        self.assertEqual(self.told, ["txbits: --backend: x: no"])

    def test_a_reload_is_over_when_the_last_one_is(self):
        self.start()
        first = self.service.reloader.reading = Deferred()
        self.process.hang_up()
        second = self.service.reloader.reading = Deferred()
        self.process.hang_up()
        self.assertEqual(self.told[1:], ["reloading", "reloading"])
        first.callback(None)
        self.assertEqual(len(self.told), 3)
        second.callback(None)
        self.assertEqual(self.told[3:], ["ready"])

    def test_a_reload_that_the_end_cuts_short_is_not_over(self):
        self.start()
        reading = self.service.reloader.reading = Deferred()
        self.process.hang_up()
        self.stop()
        reading.callback(None)
        self.assertEqual(self.told.count("ready"), 1)

    def test_health_is_told_what_the_service_is_doing(self):
        self.b.starting = Deferred()
        self.start()
        self.assertEqual(self.health.state, "starting")
        self.b.starting.callback(None)
        self.assertEqual(self.health.state, "running")
        self.b.stopping = Deferred()
        stopped = self.stop()
        self.assertEqual(self.health.state, "stopping")
        self.b.stopping.callback(None)
        self.successResultOf(stopped)

    def test_a_hang_up_while_starting_waits_for_the_start(self):
        self.b.starting = Deferred()
        self.start()
        self.process.hang_up()
        self.assertNotIn("reload", self.events)
        self.b.starting.callback(None)
        self.assertEqual(self.events[-2:], ["settle", "reload"])

    def test_directories_stop_when_nothing_is_being_changed_any_more(self):
        reloader = self.service.reloader = Reloader(self.events, Deferred())
        self.start()
        stopped = self.stop()
        self.assertEqual(self.events, ["close one", "close two", "stop reloading"])
        reloader.stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.events[3:], ["stop a", "stop b"])

    def test_directories_that_come_and_go_later_are_stopped_once(self):
        self.start()
        c = served("/c", "z", Manager("c", self.events), self.reactor)
        self.successResultOf(c.start())
        self.service.directories.append(c)
        self.events.clear()
        self.successResultOf(self.service.directories.pop(0).stop())
        self.assertEqual(self.events, ["stop a"])
        self.successResultOf(self.stop())
        self.assertEqual(self.events[3:], ["stop b", "stop c"])

    def test_versions_are_the_first_line_of_the_log(self):
        self.start()
        self.assertEqual(self.logged[0]["log_format"], "{versions} starting")
        self.assertEqual(self.logged[0]["versions"], versions())

    def test_a_start_that_takes_long_is_told_and_waited_for(self):
        self.b.starting = Deferred()
        self.start()
        self.reactor.advance(3.9)
        self.assertEqual([e for e in self.logged if is_serious(e)], [])
        self.reactor.advance(0.2)
        (warning,) = [e for e in self.logged if is_serious(e)]
        self.assertEqual(
            formatEvent(warning), "--backend: y: not ready after 4 s, waiting"
        )
        self.reactor.advance(3600)
        self.b.starting.callback(None)
        self.assertIn("settle", self.events)
        self.assertEqual([e for e in self.logged if is_serious(e)], [warning])

    def test_nothing_is_told_of_a_start_in_time(self):
        self.start()
        self.reactor.advance(10)
        self.assertEqual([e for e in self.logged if is_serious(e)], [])

    def test_addresses_are_shown_as_they_are_written(self):
        for address, shown in (
            (IPv4Address("TCP", "0.0.0.0", 8080), "0.0.0.0:8080"),
            (IPv6Address("TCP", "::1", 80), "[::1]:80"),
            (UNIXAddress("/run/txbits"), "/run/txbits"),
        ):
            self.one.address = address
            self.logged.clear()
            self.start()
            (event, _) = [e for e in self.logged if "address" in e]
            self.assertEqual(event["address"], shown)
            self.setUp()
