"""
Runs of the kit: what is left behind, what ends one, and what counts.
"""

from __future__ import annotations

import json

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.check.joined import Endpoint, drive
from tests.check.scripted import DENIED, FAIL, SILENCE, Answer, Server
from txbits.check import (
    CHECKS,
    Check,
    Level,
    NotLetIn,
    Outcome,
    Report,
    Result,
    Run,
    Target,
    Unreachable,
    check,
    select,
)
from txbits.client import (
    ConnectionSettings,
    Credentials,
    InvalidSettings,
    InvalidURL,
)


def named(*names):
    return select(CHECKS, names)


def first(report):
    return report.results[0]


@implementer(IStreamClientEndpoint)
class Refusing:
    """Connects to nothing."""

    def connect(self, factory):
        return fail(ConnectionRefusedError("nobody is there."))


@implementer(IStreamClientEndpoint)
class GoingAway(Endpoint):
    """Connects so often, and no more."""

    def __init__(self, server, connections):
        super().__init__(server)
        self.left = connections

    def connect(self, factory):
        if not self.left:
            return fail(ConnectionRefusedError("nobody is there any more"))
        self.left -= 1
        return super().connect(factory)


@implementer(IStreamClientEndpoint)
class Stuck:
    """Connects at no time."""

    def connect(self, factory):
        return Deferred()


class TidinessTests(SynchronousTestCase):
    """What a run leaves."""

    def open_sessions(self, server):
        return [one for one in server.sessions.values() if one.state == "open"]

    def test_without_permission_nothing_is_published(self):
        server = Server()
        report = drive(server, CHECKS, may_publish=False)
        self.assertEqual(server.files, {})
        self.assertEqual(report.left_behind, ())
        for result in report.results:
            is_not_run = result.outcome is Outcome.NOT_APPLICABLE
            if result.check.publishes:
                self.assertTrue(is_not_run and "--publish" in result.detail, result)

    def test_every_session_is_cancelled(self):
        server = Server()
        drive(server, CHECKS)
        self.assertGreater(len(server.sessions), 80)
        self.assertEqual(self.open_sessions(server), [])

    def test_so_they_are_where_ids_are_no_guids_which_is_one_failure(self):
        server = Server(own_ids=True)
        report = drive(server, CHECKS, may_publish=True)
        failed = [each for each in report.results if each.outcome is Outcome.FAILED]
        self.assertEqual(
            [each.check.name for each in failed], ["create-gives-session-id"]
        )
        self.assertEqual(failed[0].detail, "BITS-Session-Id is Own/26==")
        skipped = [
            each.check.name
            for each in report.results
            if each.outcome is Outcome.NOT_APPLICABLE and "not a GUID" in each.detail
        ]
        self.assertEqual(
            skipped,
            [
                "session-id-in-lower-case",
                "session-id-without-braces",
                "session-id-is-guid",
            ],
        )
        # The fifth is about a host id, which this server does not give.
        self.assertEqual(report.count(Outcome.PASSED), len(CHECKS) - 5)
        self.assertEqual(self.open_sessions(server), [])

    def test_so_are_those_that_should_not_have_been_created(self):
        def take_everything(server, request):
            return request.kind == "create-session" and server.created(request)

        server = Server(before=take_everything)
        report = drive(server, CHECKS, may_publish=False)
        self.assertFalse(report.is_good())
        self.assertEqual(self.open_sessions(server), [])

    def test_published_files_are_told(self):
        server = Server()
        report = drive(server, CHECKS)
        urls = [f"file http://server.example{path}" for path in server.files]
        self.assertEqual(sorted(report.left_behind), sorted(urls))

    def test_a_file_that_should_not_be_there_is_told(self):
        def publish(server, request):
            if request.kind == "close-session":
                server.files[request.path] = b"half"

        server = Server(before=publish)
        report = drive(server, named("close-of-an-incomplete-upload"))
        (path,) = server.files
        self.assertEqual(report.left_behind, (f"file http://server.example{path}",))

    def test_files_that_appear_at_the_last_fragment_are_told(self):
        def publish(server, request, answer):
            session = server.session_of(request)
            if session and session.is_complete:
                server.files[request.path] = bytes(session.data)

        server = Server(after=publish)
        report = drive(server, CHECKS)
        urls = [f"file http://server.example{path}" for path in server.files]
        self.assertGreater(len(urls), sum(one.publishes for one in CHECKS))
        self.assertEqual(sorted(report.left_behind), sorted(urls))
        self.assertEqual(self.open_sessions(server), [])

    def test_a_server_that_ends_before_that_is_certain_is_told(self):
        def end(server, request):
            is_over = any(one.state == "cancelled" for one in server.sessions.values())
            return request.kind == "create-session" and is_over and SILENCE

        report = drive(Server(before=end), named("cancel-of-a-complete-upload"))
        (line,) = report.left_behind
        self.assertTrue(line.startswith("perhaps file http://server.example/"), line)

    def test_a_cancel_that_fails_is_sent_again(self):
        failures = [1, 2]

        def fail_twice(server, request):
            is_cancel = request.kind == "cancel-session"
            return (
                is_cancel and failures and server.refuse(500, failures.pop() and FAIL)
            )

        server = Server(before=fail_twice)
        report = drive(server, named("create-is-acknowledged"))
        self.assertEqual(report.left_behind, ())
        self.assertEqual(self.open_sessions(server), [])

    def test_a_session_that_cannot_be_cancelled_is_told(self):
        for status, hresult in ((403, DENIED), (500, FAIL)):

            def refuse(server, request, status=status, hresult=hresult):
                is_cancel = request.kind == "cancel-session"
                return is_cancel and server.refuse(status, hresult)

            report = drive(Server(before=refuse), named("create-is-acknowledged"))
            (line,) = report.left_behind
            self.assertTrue(line.startswith("session {ABCDEF00-0000-4000"), line)
            self.assertIn(str(status), line)

    def test_a_server_that_stops_answering_is_told(self):
        def stop(server, request):
            return request.kind == "cancel-session" and SILENCE

        report = drive(Server(before=stop), named("create-is-acknowledged"))
        self.assertIn("no answer within 10 seconds", *report.left_behind)

    def test_tokens_in_the_query_are_not_told(self):
        report = drive(
            Server(), CHECKS, url="http://server.example/folder/?token=secret"
        )
        self.assertEqual(report.count(Outcome.FAILED), 0)
        self.assertNotIn("secret", json.dumps(report.to_json()))


class EndTests(SynchronousTestCase):
    """What ends a check, or a run."""

    def run_at(self, endpoint, clock, checks=CHECKS[:1]):
        run = Run(Target.of("http://server.example/"), endpoint, clock)
        return run, run.start(checks)

    def deliver(self, endpoint):
        while endpoint.queue:
            endpoint.queue.popleft()()

    def test_no_connection_ends_it(self):
        _, running = self.run_at(Refusing(), Clock())
        error = self.failureResultOf(running, Unreachable).value
        self.assertEqual(
            str(error),
            "http://server.example/: Connection was refused by other side"
            ": nobody is there",
        )

    def test_a_connection_that_takes_too_long_ends_it(self):
        clock = Clock()
        _, running = self.run_at(Stuck(), clock)
        clock.advance(10)
        self.failureResultOf(running, Unreachable)

    def test_a_server_that_requires_a_login_ends_it(self):
        def ask(server, request):
            if request["authorization"] == "Bearer abc":
                return None
            challenge = 'Bearer realm="x", Negotiate'
            headers = {"WWW-Authenticate": challenge, "Content-Length": "0"}
            return Answer(401, headers)

        with self.assertRaises(NotLetIn) as caught:
            drive(Server(before=ask), CHECKS)
        self.assertEqual(
            str(caught.exception),
            "the server answered 401 Unauthorized; it asks for Bearer or Negotiate",
        )
        self.assertEqual(caught.exception.status, 401)
        settings = ConnectionSettings(token="abc", allow_plain_token=True)
        report = drive(Server(before=ask), CHECKS, settings=settings)
        self.assertTrue(report.is_good(strict=True))

    def test_a_token_is_not_sent_in_plain_text(self):
        running = check(
            "http://h/", reactor=Clock(), settings=ConnectionSettings(token="abc")
        )
        error = self.failureResultOf(running, InvalidSettings).value
        self.assertIn("the token is not sent to h in plain text", str(error))

    def test_silence_fails_a_check(self):
        server = Server(before=lambda server, request: SILENCE)
        result = first(drive(server, named("ping-is-acknowledged")))
        self.assertIs(result.outcome, Outcome.FAILED)
        self.assertEqual(result.detail, "no answer within 10 seconds")

    def test_a_server_that_stays_silent_is_not_waited_for_long(self):
        report = drive(Server(before=lambda server, request: SILENCE), CHECKS)
        outcomes = [each.outcome for each in report.results]
        self.assertEqual(outcomes[:3], [Outcome.FAILED] * 3)
        self.assertEqual(set(outcomes[3:]), {Outcome.NOT_APPLICABLE})
        last = report.results[-1].detail
        self.assertEqual(last, "the server no longer answers")

    def test_a_connection_that_is_dropped_fails_a_check(self):
        def drop(server, request):
            request.connection.link.close()
            return SILENCE

        result = first(drive(Server(before=drop), named("ping-is-acknowledged")))
        self.assertIs(result.outcome, Outcome.FAILED)
        self.assertIn("closed without", result.detail)

    def test_a_check_has_an_end_whatever_the_server_does(self):
        clock = Clock()

        async def forever(bench):
            await Deferred()

        endless = Check("endless", "1", Level.MUST, "It ends.", forever)
        endpoint = Endpoint(Server())
        _, running = self.run_at(endpoint, clock, [endless])
        self.deliver(endpoint)
        clock.advance(120)
        result = first(self.successResultOf(running))
        self.assertEqual(
            (result.outcome, result.detail),
            (Outcome.FAILED, "the check did not end in time"),
        )

    def test_without_sessions_what_needs_one_does_not_apply(self):
        def refuse(server, request):
            if request.kind == "create-session":
                return server.refuse(403, DENIED)
            return None

        report = drive(Server(before=refuse), CHECKS)
        outcomes = {each.check.name: each for each in report.results}
        self.assertIs(outcomes["create-is-acknowledged"].outcome, Outcome.FAILED)
        gap = outcomes["gap-is-out-of-step"]
        self.assertIs(gap.outcome, Outcome.NOT_APPLICABLE)
        self.assertEqual(gap.detail, "Create-Session was answered with 403, 0x80070005")

    def test_a_server_that_goes_away_fails_what_is_left(self):
        clock = Clock()
        endpoint = GoingAway(Server(), connections=1)
        _, running = self.run_at(endpoint, clock)
        self.deliver(endpoint)
        result = first(self.successResultOf(running))
        self.assertIs(result.outcome, Outcome.FAILED)
        self.assertIn("no connection", result.detail)

    def test_urls_and_settings_that_are_none_are_refused(self):
        self.failureResultOf(check("ftp://h/", reactor=Clock()), InvalidURL)
        proxied = ConnectionSettings(proxy="http://h:8080")
        running = check("http://h/", reactor=Clock(), settings=proxied)
        self.failureResultOf(running, InvalidSettings)

    def test_an_interrupted_run_cancels_its_session(self):
        clock, server = Clock(), Server()
        endpoint = Endpoint(server)
        server.before = lambda server, request: request.kind == "fragment" and SILENCE
        _, running = self.run_at(endpoint, clock, named("fragment-is-acknowledged"))
        while endpoint.queue:
            endpoint.queue.popleft()()
        self.assertNoResult(running)
        running.cancel()
        while endpoint.queue:
            endpoint.queue.popleft()()
        self.failureResultOf(running, CancelledError)
        self.assertEqual([one.state for one in server.sessions.values()], ["cancelled"])

    def test_a_name_that_no_check_has_is_an_error(self):
        self.assertRaises(KeyError, select, CHECKS, ["frobnicate"])


class VerdictTests(SynchronousTestCase):
    """What counts."""

    def report(self, level, outcome=Outcome.FAILED):
        check = Check("it", "1", level, "It is so.", lambda bench: None)
        return Report("http://h/", [Result(check, outcome, "not so")])

    def test_what_mc_bup_demands_counts(self):
        for level in (Level.MUST, Level.SHOULD):
            self.assertFalse(self.report(level).is_good())

    def test_what_txbits_promises_counts_if_asked_for(self):
        self.assertTrue(self.report(Level.TXBITS).is_good())
        self.assertFalse(self.report(Level.TXBITS).is_good(strict=True))

    def test_what_does_not_apply_does_not_count(self):
        for outcome in (Outcome.PASSED, Outcome.NOT_APPLICABLE):
            self.assertTrue(self.report(Level.MUST, outcome).is_good(strict=True))

    def test_json_has_it_all(self):
        self.assertEqual(
            json.loads(json.dumps(self.report(Level.TXBITS).to_json())),
            {
                "url": "http://h/",
                "checks": [
                    {
                        "name": "it",
                        "section": "1",
                        "level": "txbits",
                        "expectation": "It is so.",
                        "outcome": "failed",
                        "detail": "not so",
                    }
                ],
                "passed": 0,
                "failed": 1,
                "not_applicable": 0,
                "left_behind": [],
            },
        )


class ListTests(SynchronousTestCase):
    """The list of checks."""

    def test_names_are_unique(self):
        names = [check.name for check in CHECKS]
        self.assertEqual(len(names), len(set(names)))

    def test_every_check_has_a_section_and_an_expectation(self):
        for one in CHECKS:
            self.assertRegex(one.section, r"^[23](\.\d+)+$")
            self.assertRegex(one.expectation, r"^[A-Z].*\.$")
            self.assertRegex(one.name, r"^[a-z0-9]+(-[a-z0-9]+)+$")


class TargetTests(SynchronousTestCase):
    """URLs of folders."""

    def test_a_url_is_a_folder_with_and_without_a_slash(self):
        for url in ("http://h/a/b", "http://h/a/b/"):
            self.assertEqual(Target.of(url).target(b"x"), b"/a/b/x")
        for url in ("http://h", "http://h/"):
            self.assertEqual(Target.of(url).target(b"x"), b"/x")
            self.assertEqual(Target.of(url).target(b""), b"/")

    def test_what_is_encoded_stays_so(self):
        target = Target.of("http://h/a%20b/%2F/ü")
        self.assertEqual(target.target(b"x"), b"/a%20b/%2F/%C3%BC/x")

    def test_a_query_is_kept(self):
        target = Target.of("http://h/a?token=%2F1")
        self.assertEqual(target.target(b"x"), b"/a/x?token=%2F1")
        self.assertEqual(target.shown(), "http://h/a/")

    def test_host_has_the_port_that_is_not_the_usual(self):
        for url, host in (
            ("http://h/", b"h"),
            ("https://h:443/", b"h"),
            ("http://h:8080/", b"h:8080"),
            ("http://[::1]:8080/", b"[::1]:8080"),
        ):
            self.assertEqual(Target.of(url).host, host)

    def test_names_are_all_different(self):
        target = Target.of("http://h/")
        names = {target.new_name() for _ in range(10)}
        names |= {Target.of("http://h/").new_name() for _ in range(10)}
        self.assertEqual(len(names), 20)

    def test_headers_go_with_each_request(self):
        seen = set()

        def look(server, request):
            seen.add((request["x-token"], request["authorization"]))
            return Answer(200) if request.kind == "ping" else None

        clock, endpoint = Clock(), Endpoint(Server(before=look))
        settings = ConnectionSettings(
            headers=[("X-Token", "abc")], credentials=Credentials("u", "p")
        )
        run = Run(Target.of("http://h/", settings), endpoint, clock, may_publish=True)
        running = run.start(CHECKS)
        while not running.called:
            if endpoint.queue:
                endpoint.queue.popleft()()
            else:
                clock.advance(1)
        self.assertEqual(seen, {("abc", "Basic dTpw")})

    def test_a_proxy_is_refused(self):
        settings = ConnectionSettings(proxy="http://h:8080")
        target = Target.of("http://h/", settings)
        self.assertRaises(InvalidSettings, target.endpoint, Clock(), 1)
