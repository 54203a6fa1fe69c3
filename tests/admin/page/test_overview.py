"""
What the paths of the page answer.
"""

from __future__ import annotations

from urllib.parse import urlencode

from twisted.internet.defer import succeed

from tests.admin.page.support import Markup, Sessions, glance, record
from tests.admin.support import request
from tests.web.support import WebCase, responses
from txbits.admin import AdminResource
from txbits.admin.page import OperatorPage
from txbits.admin.page.overview import MOST_SESSIONS
from txbits.admin.page.streams import INTERVAL, MOST_STREAMS
from txbits.admin.tokens import FormTokens
from txbits.errors import BackendError, ServerStopping
from txbits.sessions import Caller


class PageCase(WebCase):
    """
    The page in a site in memory.

    :ivar sessions: The sessions that there are.
    :ivar glance: What is going on.
    """

    def setUp(self):
        super().setUp()
        self.sessions = Sessions([record(number) for number in range(3)])
        self.glance = glance()
        self.tokens = FormTokens(self.clock.seconds)
        self.page = OperatorPage(
            lambda: self.glance,
            self.sessions,
            self.tokens,
            self.clock,
            "machine",
            lambda: (),
        )
        self.page.streams.start()
        self.addCleanup(self.page.streams.stop)
        root = AdminResource({}, lambda: None, self.tokens, self.page.routes())
        self.site = self.bits_site(root)

    def visit(self, target="/", method=b"GET", **headers):
        peer = self.peer()
        peer.send(request(method, target.encode(), **headers))
        # It may take several turns of the reactor.
        self.clock.pump([0] * 50)
        (response,) = responses(peer.received())
        return response

    def read(self, target="/"):
        response = self.visit(target)
        self.assertEqual(response.status, 200)
        self.assertEqual(response["Content-Type"], "text/html; charset=utf-8")
        return Markup(response.body)

    def rows(self, target="/"):
        found = self.read(target)
        ids = [one.get("id") or "" for one in found.of("tr")]
        return [one.removeprefix("sessions-") for one in ids if "sessions-" in one]

    def post(self, target, token=None, **fields):
        token = self.tokens.make(Caller()) if token is None else token
        body = urlencode({"token": token, **fields}).encode()
        return self.visit(
            target,
            b"POST",
            body=body,
            content_length=b"%d" % len(body),
            content_type=b"application/x-www-form-urlencoded",
        )


class OverviewTests(PageCase):
    """Everything at a glance."""

    def test_it_has_all_parts_and_the_name_of_the_machine(self):
        found = self.read()
        for words in (
            "txbits on machine",
            "✓ Ready",
            "Received",
            "/logs/pc-1/today.log",
            "the destination exists and overwriting is off",
            "disk:/srv/logs",
            "30 days left",
        ):
            self.assertIn(words, found.text)

    def test_only_what_this_site_sends_is_used(self):
        policy = self.visit()["Content-Security-Policy"]
        self.assertTrue(policy.startswith("default-src 'none'; "))
        self.assertNotIn("unsafe", policy)
        for directive in ("base-uri", "frame-ancestors"):
            self.assertIn(f"{directive} 'none'", policy)

    def test_its_files_are_served(self):
        for name, kind in (
            ("style.css", "text/css; charset=utf-8"),
            ("page.js", "text/javascript; charset=utf-8"),
            ("icon.svg", "image/svg+xml"),
        ):
            response = self.visit(f"/{name}")
            self.assertEqual((response.status, response["Content-Type"]), (200, kind))
            self.assertEqual(response["X-Content-Type-Options"], "nosniff")
        self.assertEqual(self.visit("/page.xml").status, 404)

    def test_what_is_gathered_may_come_later(self):
        self.page._glance = lambda: succeed(self.glance)
        self.assertIn("✓ Ready", self.read().text)

    def test_a_bounded_number_of_sessions_is_shown(self):
        self.sessions.records = [record(number) for number in range(60)]
        seen, target = [], "/"
        while target:
            found = self.rows(target)
            self.assertLessEqual(len(found), MOST_SESSIONS)
            seen += found
            following = [
                one["href"] for one in self.read(target).of("a") if "rel" in one
            ]
            target = following[0] if following else None
        self.assertEqual(seen, [one.session for one in self.sessions.records])

    def test_sessions_are_looked_for_until_there_are_some(self):
        self.sessions.records = [record(number) for number in range(40)]
        self.sessions.most_looked_at = 5
        self.assertEqual(len(self.rows("/?text=pc-37")), 1)

    def test_a_search_that_finds_none_comes_to_an_end_and_can_be_continued(self):
        self.sessions.records = [record(number) for number in range(40)]
        self.sessions.most_looked_at = 1
        found = self.read("/?text=nothing")
        self.assertEqual(self.sessions.listings, 10)
        self.assertIn("None on this page.", found.text)
        self.assertIn("/?text=nothing&cursor=10", [a["href"] for a in found.of("a")])

    def test_filters_choose_sessions(self):
        self.sessions.records = [
            record(1, directory="/a"),
            record(2, state="created"),
            record(3, active=True),
            record(4, last_progress=glance().at - 700),
        ]
        ids = [one.session for one in self.sessions.records]
        for query, fitting in (
            ("directory=%2Fa", ids[:1]),
            ("state=created", ids[1:2]),
            ("state=active", ids[2:3]),
            ("idle=600", ids[3:]),
            ("text=PC-2", ids[1:2]),
            ("directory=&state=&idle=&text=", ids),
        ):
            self.assertEqual(self.rows(f"/?{query}"), fitting, query)

    def test_what_is_no_choice_is_left_out(self):
        for query in ("state=x", "idle=x", "idle=-1", "idle=%C2%B2", "idle=61", "x=y"):
            self.assertEqual(len(self.rows(f"/?{query}")), 3, query)

    def test_a_cursor_that_is_none_leads_to_the_first_page(self):
        response = self.visit("/?cursor=x")
        self.assertEqual((response.status, response["Location"]), (303, "/"))

    def test_a_store_that_fails_is_told_on_the_page(self):
        for fault in (BackendError("on fire"), ServerStopping("on fire", 30)):
            self.sessions.fault = fault
            self.assertIn("on fire", self.read().text)
        self.sessions.fault, self.sessions.faults = None, ("/a: is away",)
        self.assertIn("/a: is away", self.read().text)

    def test_a_notice_is_shown_only_if_it_is_true(self):
        one = record(1).session
        notice = f"Session {one} is no longer open."
        self.assertNotIn(notice, self.read(f"/?gone={one}").text)
        self.sessions.records.clear()
        self.assertIn(notice, self.read(f"/?gone={one}").text)
        self.assertNotIn("free money", self.read("/?gone=free%20money").text)
        self.sessions.fault = BackendError("away")
        self.assertNotIn(notice, self.read(f"/?gone={one}").text)


class CancelTests(PageCase):
    """Cancelling a session: a page that asks, and a form."""

    def test_the_page_of_a_session_has_a_form_that_cancels_it(self):
        one = record(1).session
        found = self.read(f"/sessions/{one}")
        (form,) = found.of("form")
        self.assertEqual(form["method"], "post")
        (field,) = found.of("input")
        self.assertEqual((field["type"], field["name"]), ("hidden", "token"))
        response = self.post(form["action"], field["value"])
        self.assertEqual(
            (response.status, response["Location"]), (303, f"/?gone={one}")
        )
        self.assertNotIn(one, [left.session for left in self.sessions.records])

    def test_a_form_without_our_token_cancels_nothing(self):
        one = record(1).session
        for token in ("", "x", self.tokens.make(Caller("eve"))):
            self.assertEqual(self.post(f"/sessions/{one}/cancel", token).status, 403)
        self.assertEqual(len(self.sessions.records), 3)

    def test_looking_at_the_address_of_the_form_cancels_nothing(self):
        response = self.visit(f"/sessions/{record(1).session}/cancel")
        self.assertEqual((response.status, response["Allow"]), (405, "POST"))
        self.assertEqual(len(self.sessions.records), 3)

    def test_a_session_that_is_gone(self):
        for response in (
            self.visit("/sessions/x"),
            self.post("/sessions/x/cancel"),
        ):
            self.assertEqual(response.status, 404)
            self.assertIn("No such session", Markup(response.body).text)

    def test_what_could_not_be_cancelled_is_told(self):
        for fault in (BackendError("on fire"), ServerStopping("on fire", 30)):
            self.sessions.fault = fault
            response = self.post(f"/sessions/{record(1).session}/cancel")
            self.assertEqual(response.status, 503)
            self.assertIn("on fire", Markup(response.body).text)

    def test_what_cannot_be_shown_is_told(self):
        self.sessions.fault = BackendError("on fire")
        response = self.visit(f"/sessions/{record(1).session}")
        self.assertEqual(response.status, 503)
        self.assertIn("on fire", Markup(response.body).text)


class PurgeTests(PageCase):
    """Cancelling old sessions."""

    def setUp(self):
        super().setUp()
        self.sessions.records = [
            record(number, last_progress=glance().at - 100 * number)
            for number in range(1, 11)
        ]

    def test_the_page_asks_first_and_its_form_cancels_them(self):
        found = self.read("/purge?idle=600")
        self.assertIn("Cancel 5 sessions without progress for 10 minutes?", found.text)
        self.assertEqual(len(self.sessions.records), 10)
        fields = {one["name"]: one["value"] for one in found.of("input")}
        response = self.post("/purge", **fields)
        self.assertIn("5 sessions cancelled.", Markup(response.body).text)
        self.assertEqual(len(self.sessions.records), 5)

    def test_many_are_cancelled_step_by_step(self):
        self.sessions.records = [
            record(number, last_progress=0) for number in range(250)
        ]
        self.assertIn("at least 25 sessions", self.read("/purge?idle=600").text)
        response = self.post("/purge", idle="600")
        self.assertIn("250 sessions cancelled.", Markup(response.body).text)
        self.assertEqual(len(self.sessions.operators), 3)

    def test_it_answers_before_the_browser_gives_up(self):
        self.sessions.records = [
            record(number, last_progress=0) for number in range(250)
        ]
        purge = self.sessions.purge

        def slow(*arguments):
            self.clock.rightNow += 30
            return purge(*arguments)

        self.sessions.purge = slow
        text = Markup(self.post("/purge", idle="600").body).text
        self.assertIn("100 sessions cancelled. There are more.", text)

    def test_faults_are_told(self):
        self.sessions.faults = [f"fault {number}" for number in range(20)]
        text = Markup(self.post("/purge", idle="600").body).text
        self.assertIn("fault 9", text)
        self.assertNotIn("fault 10", text)
        self.sessions.fault = BackendError("on fire")
        text = Markup(self.post("/purge", idle="600").body).text
        self.assertIn("0 sessions cancelled. on fire", text)

    def test_there_is_nothing_to_ask_if_none_is_old(self):
        found = self.read("/purge?idle=86400")
        self.assertIn("No session has been without progress for a day.", found.text)
        self.assertEqual(found.of("form"), [])

    def test_an_age_that_is_no_choice_cancels_nothing(self):
        for idle in ("", "0", "x", "61", "0000000006001"):
            self.assertEqual(self.visit(f"/purge?idle={idle}").status, 303)
            self.assertEqual(self.post("/purge", idle=idle).status, 303)
        self.assertEqual(self.post("/purge", token="", idle="600").status, 403)
        self.assertEqual(len(self.sessions.records), 10)


class EventTests(PageCase):
    """The events of the page."""

    def stream(self, query=""):
        peer = self.peer()
        peer.send(request(b"GET", f"/events{query}".encode()))
        return peer

    def round(self):
        self.clock.advance(INTERVAL)
        self.clock.pump([0] * 20)

    def test_each_part_comes_when_it_has_changed(self):
        peer = self.stream()
        self.round()
        first = peer.received()
        for name in (b"health", b"plots", b"sessions", b"refusals", b"server"):
            self.assertIn(b' id="%b"' % name, first)
        self.round()
        self.assertEqual(peer.received(), b"")
        self.glance = glance(obstacles=("/logs: on fire",))
        self.round()
        event = peer.received()
        self.assertIn(b"on fire", event)
        self.assertNotIn(b' id="plots"', event)

    def test_sessions_are_those_of_the_query(self):
        peer = self.stream("?text=pc-2")
        self.round()
        event = peer.received()
        self.assertIn(record(2).session.encode(), event)
        self.assertNotIn(record(1).session.encode(), event)

    def test_a_long_listing_is_not_repeated_at_once(self):
        page = self.sessions.page

        def slow(*arguments):
            self.clock.rightNow += 0.5
            return page(*arguments)

        self.sessions.page = slow
        self.stream()
        for _ in range(4):
            self.round()
        # Half a second may be taken of each five.
        self.assertEqual(self.sessions.listings, 2)

    def test_a_cursor_that_is_none_shows_none(self):
        peer = self.stream("?cursor=x")
        self.round()
        self.assertIn(b"None on this page.", peer.received())

    def test_a_stream_too_many_is_refused(self):
        for _ in range(MOST_STREAMS):
            self.stream()
        self.assertEqual(self.visit("/events").status, 503)

    def test_a_head_needs_no_stream(self):
        peer = self.peer()
        peer.send(request(b"HEAD", b"/events"))
        self.assertIn(b"text/event-stream", peer.received())
        self.assertEqual(len(self.page.streams), 0)
