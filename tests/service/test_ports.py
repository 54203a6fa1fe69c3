"""
The ports of the service: which of them read their certificates again, and what is said
of the others.
"""

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txbits.errors import InvalidSetting
from txbits.interfaces import ICertified, IReloadable
from txbits.service._ports import Ports
from txbits.tls._connections import GatheringTransport


@implementer(IListeningPort)
@define(eq=False, slots=False)
class Port:
    """A port that has nothing to read again."""

    def getHost(self):
        raise NotImplementedError

    def startListening(self):
        raise NotImplementedError

    def stopListening(self):
        raise NotImplementedError


@implementer(IReloadable)
@define(eq=False)
class ReloadablePort(Port):
    """
    One that has.

    :ivar outcomes: What the next reloads return.
    :ivar reloads: How many there were.
    """

    outcomes: list = field(factory=list)
    reloads: int = 0

    def reload(self):
        self.reloads += 1
        return self.outcomes.pop(0) if self.outcomes else succeed("CN=server")


@implementer(ICertified)
class CertifiedPort(Port):
    """One that has a certificate."""

    expires = 12.5


class PortsTests(SynchronousTestCase):
    def setUp(self):
        self.ports = Ports()
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lines(self, level=None):
        return [
            formatEvent(event)
            for event in self.events
            if level in (None, event["log_level"])
        ]

    def add(self, *outcomes, address="0.0.0.0:443"):
        port = ReloadablePort(list(outcomes))
        self.ports.add(port, address, "https:443:key=k")
        return port

    def test_certificates_are_read_again(self):
        port = self.add()
        self.ports.reload()
        self.ports.reload()
        self.assertEqual(port.reloads, 2)
        line = "0.0.0.0:443: certificates reloaded: CN=server"
        self.assertEqual(self.lines(LogLevel.info), [line, line])

    def test_a_broken_file_is_one_line_and_others_are_reloaded(self):
        self.add(fail(InvalidSetting("certificate: x\nis broken")))
        good = self.add(address="0.0.0.0:444")
        self.ports.reload()
        [line] = self.lines(LogLevel.error)
        self.assertEqual(
            line,
            "0.0.0.0:443: reload failed, keeping the old certificates: "
            "certificate: x is broken",
        )
        self.assertEqual(good.reloads, 1)

    def test_any_other_failure_is_logged_and_the_next_reload_works(self):
        port = self.add(fail(RuntimeError("oops")))
        self.ports.reload()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.ports.reload()
        self.assertEqual(port.reloads, 2)

    def test_reloads_are_counted_by_result(self):
        self.add(fail(InvalidSetting("x")), fail(RuntimeError("oops")))
        self.add()
        self.ports.reload()
        self.ports.reload()
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(self.ports.counts, {"failed": 2, "succeeded": 2})

    def test_those_with_a_certificate_tell_when_it_expires(self):
        self.add()
        self.ports.add(CertifiedPort(), "0.0.0.0:444", "https:444")
        self.assertEqual(list(self.ports.certified()), [("0.0.0.0:444", 12.5)])

    def test_twisted_s_own_endpoint_cannot_reload(self):
        for description in ("ssl:443:privateKey=k", "haproxy:ssl:443", "tcp:8080"):
            self.ports.add(Port(), f"at {description[:11]}", description)
        self.ports.reload()
        self.assertEqual(
            self.lines(),
            [
                f"{address}: restart required for new certificates; https: reloads "
                "them, ssl: does not"
                for address in ("at ssl:443:pri", "at haproxy:ssl")
            ],
        )

    def test_connections_of_twisted_s_own_endpoint_gather_records(self):
        contexts = CertificateOptions()
        factory = TLSMemoryBIOFactory(contexts, False, Factory(), Clock())
        port = Port()
        port.factory = factory
        self.ports.add(port, "0.0.0.0:443", "ssl:443:privateKey=k")
        self.assertIs(factory.protocol, GatheringTransport)

    def test_a_reload_during_another_follows_it(self):
        first = Deferred()
        port = self.add(first)
        for _ in range(3):
            self.ports.reload()
        self.assertEqual(port.reloads, 1)
        first.callback("CN=server")
        self.assertEqual(port.reloads, 2)

    def test_stopping_waits_for_what_is_being_read(self):
        first = Deferred()
        port = self.add(first)
        self.ports.reload()
        self.ports.reload()
        self.assertEqual(self.ports.take(), [port])
        stopped = self.ports.stop()
        self.assertNoResult(stopped)
        first.callback("CN=server")
        self.successResultOf(stopped)
        self.assertEqual(port.reloads, 1)

    def test_stopping_without_a_reload(self):
        self.successResultOf(self.ports.stop())
