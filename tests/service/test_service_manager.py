"""
What a service manager is told, by a socket as systemd's.
"""

import os
import socket

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txbits.service._service_manager import ServiceManager


class ServiceManagerTests(SynchronousTestCase):
    """``ServiceManager``."""

    def setUp(self):
        self.clock = Clock()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.setblocking(False)
        self.name = f"@txbits-test-{os.getpid()}-{id(self)}"
        self.socket.bind("\0" + self.name[1:])
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def manager(self, **variables):
        return ServiceManager.of(self.clock, {"NOTIFY_SOCKET": self.name, **variables})

    def told(self):
        """What was told since this was asked last, as lists of lines."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def warnings(self):
        return [
            formatEvent(event)
            for event in self.events
            if event["log_level"] >= LogLevel.warn
        ]

    def test_states(self):
        manager = self.manager()
        manager._monotonic = lambda: 12.5
        manager.ready()
        manager.reloading()
        manager.stopping()
        manager.failed("txbits: no")
        self.assertEqual(
            self.told(),
            [
                ["READY=1"],
                ["RELOADING=1", "MONOTONIC_USEC=12500000", "STATUS=reloading"],
                ["STOPPING=1"],
                ["STATUS=txbits: no"],
            ],
        )

    def test_a_socket_with_a_path(self):
        # The path of a socket has at most 107 bytes.
        name = f"/tmp/txbits-{os.getpid()}-{id(self)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(name)
            self.addCleanup(os.unlink, name)
            ServiceManager.of(self.clock, {"NOTIFY_SOCKET": name}).ready()
            self.assertEqual(other.recv(100), b"READY=1")

    def test_the_status_is_told_now_and_then(self):
        manager = self.manager()
        manager.start(lambda: "7 sessions open")
        self.assertEqual(self.told(), [["STATUS=7 sessions open"]])
        self.clock.advance(29)
        self.assertEqual(self.told(), [])
        self.clock.advance(1)
        self.assertEqual(self.told(), [["STATUS=7 sessions open"]])
        manager.ready()
        self.assertEqual(self.told(), [["READY=1", "STATUS=7 sessions open"]])
        manager.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_watchdog_is_told_three_times_in_its_time(self):
        manager = self.manager(WATCHDOG_USEC="6000000")
        manager.start(lambda: "x")
        self.clock.pump([1] * 6)
        self.assertEqual(self.told(), [["WATCHDOG=1", "STATUS=x"]] * 4)
        manager.stop()

    def test_the_watchdog_of_another_process_is_not_ours(self):
        for variables, watches in (
            ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": str(os.getpid())}, True),
            ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}, False),
            ({"WATCHDOG_USEC": "0"}, False),
            ({"WATCHDOG_USEC": "-1"}, False),
            ({"WATCHDOG_USEC": "x"}, False),
        ):
            manager = self.manager(**variables)
            manager.start(lambda: "x")
            (lines,) = self.told()
            self.assertEqual("WATCHDOG=1" in lines, watches, variables)
            manager.stop()

    def test_nobody_is_told_without_a_socket(self):
        for variables in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}):
            manager = ServiceManager.of(self.clock, variables)
            manager.start(lambda: 1 / 0)
            manager.ready()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            manager.stop()
        self.assertEqual(self.warnings(), [])

    def test_a_socket_that_is_gone_is_told_of_once(self):
        self.socket.close()
        manager = self.manager()
        manager.ready()
        manager.stopping()
        (warning,) = self.warnings()
        self.assertEqual(
            warning,
            f"cannot notify the service manager at {self.name}: [Errno 111] "
            "Connection refused",
        )

    def test_a_service_manager_that_does_not_read_holds_nothing_up(self):
        manager = self.manager()
        for _ in range(10_000):
            manager.ready()
            if self.warnings():
                break
        self.assertEqual(len(self.warnings()), 1)
        self.told()
        manager.ready()
        self.assertEqual(self.told(), [["READY=1"]])
