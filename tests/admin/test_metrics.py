"""
The metrics: they are what happened, and the reference lists them all.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from uuid import UUID, uuid4

from attrs import define
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests.test_docs import tables
from tests.web.support import (
    PATH,
    UNKNOWN_ID,
    Authenticator,
    WebCase,
    fragment,
    packet,
    request,
)
from txbits._counts import Histogram
from txbits.admin.delay import LoopDelay
from txbits.admin.figures import Figures
from txbits.admin.merging import Totals
from txbits.admin.metrics import CONTENT_TYPE, METRICS, MetricsPage, snapshot
from txbits.errors import BackendError, CredentialsRejected, CredentialsUncheckable
from txbits.interfaces import Answer, ICleaning, ICounting, Identity, RequestCount
from txbits.protocol.refusals import REFUSALS
from txbits.sessions import Caller, Settings
from txbits.sessions._active import _ACTS
from txbits.web.mounts import Mounts

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


class DefinitionTests(SynchronousTestCase):
    """The table of all metrics."""

    def test_the_reference_lists_them_all(self):
        (table,) = tables(REFERENCE)
        self.assertEqual(table[0], ["name", "type", "labels", "what it is"])
        self.assertEqual(
            table[1:],
            [
                [
                    f"`{one.name}`",
                    one.kind,
                    ", ".join(f"`{label}`" for label in one.labels),
                    one.help,
                ]
                for one in METRICS
            ],
        )

    def test_names_follow_the_conventions_of_prometheus(self):
        names = [one.name for one in METRICS]
        self.assertEqual(len(names), len(set(names)))
        for one in METRICS:
            self.assertRegex(one.name, "^txbits_[a-z0-9_]+$")
            self.assertEqual(one.name.endswith("_total"), one.kind == "counter")
            if one.kind == "histogram":
                self.assertTrue(one.name.endswith("_seconds"), one.name)
            self.assertEqual(one.help[-1], ".")


LABELS = {one.name: (*one.labels, "le") for one in METRICS}


def in_order(sample):
    """The values of the labels of a sample, in the order of the table."""
    name = re.sub("_(bucket|sum|count)$", "", sample.name)
    labels = LABELS[name]
    return [sample.labels[label] for label in labels if label in sample.labels]


class MetricsCase(WebCase):
    """A directory at ``/``, and the page with its metrics."""

    mount = ()

    def setUp(self):
        super().setUp()
        self.certificates = []

    def serve(self, *args, **kwargs):
        super().serve(*args, **kwargs)
        self.root = Mounts({self.mount: self.resource})
        self.site = self.bits_site(self.root)
        self.page = MetricsPage(
            Figures(
                lambda: [("/", self.resource.manager)],
                self.root.counts,
                self.site,
                lambda: self.certificates,
                {"settings": {"failed": 3}},
                Histogram(),
                17.0,
            ),
            self.clock,
        )

    def text(self):
        """The page."""
        page = self.successResultOf(self.page())
        self.assertEqual((page.status, page.content_type), (200, CONTENT_TYPE))
        return page.body.decode()

    def samples(self):
        """The values of all series that are not 0, by name and values of labels."""
        return Counter(
            {
                (sample.name, *in_order(sample)): sample.value
                for family in text_string_to_metric_families(self.text())
                for sample in family.samples
                if sample.value
            }
        )

    def of(self, name):
        """The series of a metric that are not 0, by the labels after the first."""
        return {
            key[2:]: value
            for key, value in self.samples().items()
            if key[0] == f"txbits_{name}"
        }

    def value(self, name, *labels):
        """The value of a series; 0 if there is none."""
        return self.samples()[f"txbits_{name}", *labels]


class PageTests(MetricsCase):
    """Single figures."""

    def test_all_metrics_are_on_the_page_with_their_help(self):
        text = self.text()
        named = re.findall("^# HELP (\\S+) ", text, re.MULTILINE)
        self.assertEqual(named, [one.name for one in METRICS])

    def test_what_may_happen_is_shown_before_it_does(self):
        text = self.text()
        for refusal in REFUSALS:
            self.assertIn(
                f'txbits_refusals_total{{directory="/",refusal="{refusal.name}"}} 0.0',
                text,
            )
        for act in _ACTS:
            self.assertIn(f'operation="{act}"}} 0.0', text)
        self.assertIn('what="settings",result="succeeded"} 0.0', self.sorted(text))

    def sorted(self, text):
        return text.replace(
            'result="succeeded",what="settings"', 'what="settings",result="succeeded"'
        )

    def test_all_are_from_one_moment_though_writing_them_takes_several_turns(self):
        clock = SlowClock()
        page = MetricsPage(self.page._figures, clock)
        one, two = page(), page()
        self.assertNoResult(one)
        self.create()
        self.ask(packet(b"Ping"))
        while clock.getDelayedCalls():
            clock.advance(0)
        made = self.successResultOf(one)
        self.assertTrue(made is self.successResultOf(two), "another page")
        text = made.body
        self.assertIn(b'txbits_sessions_created_total{directory="/"} 0.0', text)
        self.assertNotIn(b'type="Ping"', text)
        self.assertEqual(text.count(b"# TYPE"), len(METRICS))

    def test_those_of_several_workers_are_asked_for(self):
        self.create()
        totals = Totals()
        for worker in 0, 3:
            totals.note(worker, snapshot(self.page._figures))
        merged = totals.snapshot({"running": 2, "ended": 1})
        self.page = MetricsPage(self.page._figures, self.clock, lambda: succeed(merged))
        self.assertEqual(self.value("sessions_created_total", "/"), 2)
        self.assertEqual(self.value("packets_total", "/", "Create-Session", "200"), 2)
        self.assertEqual(self.value("workers", "ended"), 1)
        self.assertEqual(self.value("start_time_seconds"), 17)
        self.assertEqual(self.text().count("# TYPE"), len(METRICS))

    def test_of_the_server(self):
        self.certificates.append(("0.0.0.0:443", 1234.5))
        self.assertEqual(self.value("start_time_seconds"), 17)
        self.assertEqual(self.value("reloads_total", "settings", "failed"), 3)
        self.assertEqual(
            self.value("certificate_expiry_timestamp_seconds", "0.0.0.0:443"), 1234.5
        )

    def test_connections_are_counted_by_state(self):
        peers = [self.peer() for _ in range(3)]
        peers[0].send(b"BITS_POST / HTTP/1.1\r\n")
        self.assertEqual(self.value("connections", "new"), 2)
        self.assertEqual(self.value("connections", "head"), 1)
        peers[1].lose()
        self.assertEqual(self.value("connections", "new"), 1)
        self.assertEqual(self.value("connections_made_total"), 3)
        self.assertEqual(self.value("connections_turned_away_total"), 0)

    def test_connections_over_a_limit_are_counted(self):
        self.site.limits = type(self.limits)(max_connections=1)
        self.peer()
        self.assertIsNone(self.site.buildProtocol(None))
        self.clock.advance(6)
        self.assertIsNone(self.site.buildProtocol(None))
        self.assertEqual(self.value("connections_turned_away_total"), 2)

    def test_a_lost_connection_is_a_packet_without_a_status(self):
        session = self.create()
        peer = self.peer()
        peer.send(fragment(session, 0, b"x" * 9, 9)[:-4])
        peer.lose()
        self.assertEqual(self.value("packets_total", "/", "Fragment", "none"), 1)
        self.assertEqual(self.value("received_bytes_total", "/"), 5)

    def test_times_until_the_ack(self):
        session = self.create_holding(b"ab", 4)
        gate = self.backend.hold("close")
        peer = self.peer()
        peer.send(fragment(session, 2, b"cd", 4))
        self.clock.advance(0.7)
        gate.open()
        self.assertEqual(self.answer(peer).status, 200)
        self.assertEqual(self.value("fragment_ack_seconds_count", "/"), 2)
        self.assertAlmostEqual(self.value("fragment_ack_seconds_sum", "/"), 0.7)
        self.assertEqual(self.value("fragment_ack_seconds_bucket", "/", "0.5"), 1)
        self.assertEqual(self.value("fragment_ack_seconds_bucket", "/", "1.0"), 2)
        gate = self.backend.hold("publish")
        peer.send(packet(b"Close-Session", session))
        self.clock.advance(2)
        gate.open()
        self.assertEqual(self.value("close_seconds_count", "/"), 1)
        self.assertEqual(self.value("close_seconds_sum", "/"), 2)

    def test_the_session_without_progress_for_the_longest_time(self):
        self.assertEqual(self.value("oldest_session_idle_seconds", "/"), 0)
        one = self.create(b"/one")
        self.clock.advance(10)
        self.create(b"/two")
        self.clock.advance(5)
        self.assertEqual(self.value("oldest_session_idle_seconds", "/"), 15)
        self.ask(fragment(one, 0, b"x", 9, target=b"/one"))
        self.assertEqual(self.value("oldest_session_idle_seconds", "/"), 5)

    def test_sessions_from_before_a_restart_have_their_age(self):
        session = self.create_holding(b"ab", 4)
        self.clock.advance(10)
        self.serve()
        self.assertEqual(self.value("sessions", "/"), 1)
        self.assertEqual(self.value("staged_bytes", "/"), 4)
        self.assertEqual(self.value("oldest_session_idle_seconds", "/"), 10)
        self.ask(packet(b"Cancel-Session", session))
        self.assertEqual(self.value("sessions", "/"), 0)
        self.assertEqual(self.value("oldest_session_idle_seconds", "/"), 0)

    def test_a_backend_that_fails(self):
        gate = self.backend.hold("create")
        peer = self.peer()
        peer.send(packet(b"Create-Session"))
        gate.fail(BackendError("on fire"))
        gate.open()
        self.assertEqual(self.value("backend_errors_total", "/", "create"), 1)
        self.assertEqual(self.value("backend_failing", "/"), 1)
        self.create()
        self.assertEqual(self.value("backend_failing", "/"), 0)

    def test_requests_of_a_backend_that_counts_them(self):
        self.assertEqual(self.of("store_requests_total"), {})
        counts = {("PutObject", "200"): RequestCount(3, 0.5)}
        self.backend.request_counts = lambda: counts
        directlyProvides(self.backend, ICounting, *self.backend.__provides__)
        self.assertEqual(self.of("store_requests_total"), {("PutObject", "200"): 3})
        self.assertEqual(
            self.of("store_request_seconds_total"), {("PutObject", "200"): 0.5}
        )

    def test_rounds_of_the_clean_up(self):
        self.assertEqual(self.of("cleanups_total"), {("succeeded",): 1})
        gate = self.backend.hold("clean_up")
        self.resource.manager._upkeep.clean_up()
        self.clock.advance(3)
        gate.fail(BackendError("on fire"))
        gate.open()
        self.assertEqual(self.of("cleanups_total"), {("succeeded",): 1, ("failed",): 1})
        self.assertEqual(self.value("cleanup_seconds_sum", "/"), 3)

    def test_sessions_that_time_out(self):
        self.create_holding(b"ab", 4)
        self.clock.advance(self.settings.session_timeout + 1)
        self.resource.manager._upkeep.clean_up()
        self.assertEqual(
            self.of("sessions_ended_total"), {("released", "timed-out"): 1}
        )
        self.assertEqual(self.value("discarded_bytes_total", "/"), 2)

    def test_sessions_that_end_for_other_reasons(self):
        manager = self.resource.manager
        ids = [UUID(self.create(b"/%d" % n).decode().strip("{}")) for n in range(4)]
        operator = Caller("root", is_operator=True)
        self.successResultOf(manager.end_session(ids[0], operator))
        # Somebody has emptied the store.
        del self.memory._sessions[ids[1]]
        manager._upkeep.clean_up()
        # A process was killed, or the store has failed, during a release.
        self.memory._sessions[ids[2]].releasing = True
        manager._upkeep.clean_up()
        self.successResultOf(manager.disable())
        self.assertEqual(
            self.of("sessions_ended_total"),
            {
                ("cancelled", "operator"): 1,
                ("lost", "removed"): 1,
                ("released", "unfinished"): 1,
                ("released", "disabled"): 1,
            },
        )
        self.assertEqual(self.value("sessions", "/"), 0)

    def test_a_session_that_ends_while_it_is_looked_for_is_not_lost(self):
        session = self.create()
        del self.memory._sessions[UUID(session.decode().strip("{}"))]
        gate = self.backend.hold("find")
        self.resource.manager._upkeep.clean_up()
        self.ask(packet(b"Cancel-Session", session))
        gate.open()
        self.assertEqual(self.of("sessions_ended_total"), {("cancelled", "cancel"): 1})

    def test_what_the_clean_up_removes(self):
        self.assertEqual(self.of("cleanup_removed_total"), {})
        self.backend.removed_counts = self.memory.removed_counts
        directlyProvides(self.backend, ICleaning, *self.backend.__provides__)
        session = self.create()
        self.ask(packet(b"Close-Session", session))
        claiming = self.memory.claim("once", uuid4(), self.clock.seconds())
        self.successResultOf(claiming)
        self.assertEqual(self.of("cleanup_removed_total"), {})
        self.clock.advance(10 * self.settings.session_timeout)
        self.resource.manager._upkeep.clean_up()
        self.assertEqual(
            self.of("cleanup_removed_total"), {("claim",): 1, ("close",): 1}
        )


class UnmountedTests(MetricsCase):
    """Requests for no directory."""

    mount = (b"a",)

    def test_they_are_counted_without_one(self):
        self.ask(packet(b"Ping", target=b"/b"))
        self.assertEqual(self.value("packets_total", "", "other", "404"), 1)
        self.assertEqual(self.value("refusals_total", "", "not-mounted"), 1)


class CredentialTests(MetricsCase):
    """Authentications by scheme and result."""

    def setUp(self):
        super().setUp()
        self.authenticator = Authenticator()
        self.serve(authenticators=[self.authenticator])

    def sent(self, answer):
        self.authenticator.answer = answer
        self.ask(packet(b"Ping"))
        return self.of("authentications_total")

    def test_results(self):
        self.assertEqual(self.sent(None), {("none", "rejected"): 1})
        self.assertEqual(self.sent(Identity("a", "told"))["told", "accepted"], 1)
        wrong = self.sent(CredentialsRejected("wrong"))
        self.assertEqual(wrong["told", "rejected"], 1)
        busy = self.sent(CredentialsUncheckable("busy", 1))
        self.assertEqual(busy["told", "uncheckable"], 1)
        self.assertEqual(self.value("refusals_total", "/", "credentials-rejected"), 2)


class DownloadTests(MetricsCase):
    """Files that are read."""

    settings = Settings(allow_downloads=True)

    def test_requests_and_bytes(self):
        session = self.create_holding(b"abcd", 4)
        self.ask(packet(b"Close-Session", session))
        self.ask(request(b"GET", PATH))
        self.ask(request(b"GET", PATH, range=b"bytes=1-2"))
        self.ask(request(b"GET", b"/none"))
        peer = self.peer()
        peer.send(request(b"HEAD", PATH))
        self.assertEqual(
            self.of("downloads_total"),
            {("GET", "200"): 1, ("GET", "206"): 1, ("GET", "404"): 1}
            | {("HEAD", "200"): 1},
        )
        self.assertEqual(self.value("served_bytes_total", "/"), 6)


class NotificationTests(MetricsCase):
    """Questions to a server application."""

    def setUp(self):
        from txbits.notification import notifier

        self.answers = [Answer(status=403), Answer(status=200)]
        self.notifier = notifier(lambda upload, reply: succeed(self.answers.pop()))
        super().setUp()

    def test_results(self):
        for target in (b"/a", b"/b"):
            session = self.create(target)
            self.ask(fragment(session, 0, b"x", 1, target=target))
        self.assertEqual(
            self.of("notifications_total"), {("accepted",): 1, ("refused",): 1}
        )
        self.assertEqual(self.value("notification_seconds_count", "/"), 2)


class SlowClock(Clock):
    """A clock that goes on by itself whenever it is read."""

    def seconds(self):
        self.rightNow += 0.002
        return self.rightNow


@define
class Upload:
    """What the test knows of a session."""

    session: bytes
    target: bytes
    total: int
    held: int = 0


class TruthTests(MetricsCase):
    """Random uploads, cancels and refusals, and what the server has counted."""

    settings = Settings(max_upload_size=1000)

    def setUp(self):
        super().setUp()
        self.random = random.Random(7)
        self.expected = Counter()
        self.open = []
        self.number = 0

    def send(self, kind, data):
        """Send a packet, and expect that it is counted."""
        answer = self.ask(data)
        self.expect("packets_total", kind, str(answer.status))
        return answer

    def expect(self, name, *labels, by=1):
        self.expected[f"txbits_{name}", "/", *labels] += by

    def refused(self, kind, data, name):
        answer = self.send(kind, data)
        self.assertIsNotNone(answer["BITS-Error-Code"], (kind, name, answer))
        self.expect("refusals_total", name)

    def any(self):
        return self.random.choice(self.open) if self.open else self.begin()

    def begin(self):
        self.number += 1
        target = b"/file-%d" % self.number
        answer = self.send("Create-Session", packet(b"Create-Session", target=target))
        self.assertEqual(answer.status, 200)
        self.expect("sessions_created_total")
        upload = Upload(
            answer["BITS-Session-Id"].encode(), target, self.random.randint(1, 300)
        )
        self.open.append(upload)
        return upload

    def body(self, upload, length):
        return fragment(
            upload.session,
            upload.held,
            b"x" * length,
            upload.total,
            target=upload.target,
        )

    def go_on(self):
        upload = self.any()
        left = upload.total - upload.held
        if left:
            length = self.random.randint(1, left)
            self.assertEqual(
                self.send("Fragment", self.body(upload, length)).status, 200
            )
            upload.held += length
            self.expect("received_bytes_total", by=length)
            self.expect("fragment_ack_seconds_count")

    def break_off(self):
        upload = self.any()
        left = upload.total - upload.held
        if left > 1:
            length = self.random.randint(2, left)
            arrived = self.random.randint(1, length - 1)
            peer = self.peer()
            peer.send(self.body(upload, length)[: arrived - length])
            peer.lose()
            upload.held += arrived
            self.expect("received_bytes_total", by=arrived)
            self.expect("packets_total", "Fragment", "none")

    def end(self, kind):
        upload = self.any()
        data = packet(kind.encode(), upload.session, target=upload.target)
        self.assertEqual(self.send(kind, data).status, 200)
        self.open.remove(upload)
        return upload

    def close(self):
        upload = self.end("Close-Session")
        self.expect("close_seconds_count")
        if upload.held in (0, upload.total):
            # One without a Fragment is that of an empty file.
            self.expect("sessions_ended_total", "published", "close")
            self.expect("published_bytes_total", by=upload.held)
        else:
            self.expect("sessions_ended_total", "discarded", "close")
            self.expect("discarded_bytes_total", by=upload.held)

    def cancel(self):
        upload = self.end("Cancel-Session")
        self.expect("sessions_ended_total", "cancelled", "cancel")
        self.expect("discarded_bytes_total", by=upload.held)

    def send_too_much(self):
        self.refused(
            "Fragment",
            fragment(self.begin().session, 0, b"x", 2000, target=self.open[-1].target),
            "upload-too-large",
        )
        upload = self.open.pop()
        data = packet(b"Cancel-Session", upload.session, target=upload.target)
        self.send("Cancel-Session", data)
        self.expect("sessions_ended_total", "cancelled", "cancel")

    def skip_bytes(self):
        upload = self.any()
        if upload.total - upload.held > 1:
            data = fragment(
                upload.session, upload.held + 1, b"x", upload.total,
                target=upload.target,
            )  # fmt: skip
            self.refused("Fragment", data, "out-of-step")
            if not upload.held:
                # The server knows now that the file is not empty.
                self.go_on_with(upload)

    def go_on_with(self, upload):
        self.send("Fragment", self.body(upload, 1))
        upload.held += 1
        self.expect("received_bytes_total", by=1)
        self.expect("fragment_ack_seconds_count")

    def name_nobody(self):
        self.refused("Fragment", fragment(UNKNOWN_ID, 0, b"x", 2), "session-not-found")

    def ping(self):
        self.send("Ping", packet(b"Ping"))

    def talk_nonsense(self):
        self.refused("other", packet(b"Nonsense"), "unknown-packet-type")

    def test_counters_are_what_happened(self):
        acts = [
            *(self.begin, self.go_on, self.go_on, self.go_on, self.break_off),
            *(self.close, self.cancel, self.send_too_much, self.skip_bytes),
            *(self.name_nobody, self.ping, self.talk_nonsense),
        ]
        for _ in range(1000):
            self.random.choice(acts)()
        found = self.samples()
        names = {key[0] for key in self.expected}
        self.assertGreater(len(names), 8)
        self.assertEqual(
            {key: value for key, value in found.items() if key[0] in names},
            {key: value for key, value in self.expected.items() if value},
        )
        self.assertEqual(found["txbits_sessions", "/"], len(self.open))
        self.assertEqual(
            found["txbits_staged_bytes", "/"],
            sum(one.total for one in self.open if one.held),
        )


class DelayTests(SynchronousTestCase):
    """By how much calls of the reactor are late."""

    def test_what_is_late_is_measured(self):
        clock = Clock()
        delay = LoopDelay(clock)
        delay.start()
        clock.advance(1)
        clock.advance(1.25)
        self.assertEqual(delay.delays.total, 2)
        self.assertEqual(delay.delays.seconds, 0.25)
        delay.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
        delay.stop()
