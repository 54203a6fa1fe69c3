"""
The pages of the operator's listener, and who may see them.
"""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.support import request
from tests.web.support import Authenticator, WebCase, packet
from txbits.admin import AdminResource, Page
from txbits.admin.pages import see_other
from txbits.admin.resource import Operators
from txbits.admin.routes import Route
from txbits.admin.tokens import LIFETIME, FormTokens
from txbits.errors import CredentialsIncomplete, CredentialsUncheckable
from txbits.interfaces import FULL_GRANT, Identity, Scope
from txbits.sessions import Caller
from txbits.web import Limits


class AdminCase(WebCase):
    """A site with one page."""

    def setUp(self):
        super().setUp()
        self.operators = None
        self.made = 0
        self.tokens = FormTokens(lambda: 0.0)
        root = AdminResource(
            {b"/a/page": self.make}, lambda: self.operators, self.tokens, self.routes()
        )
        self.site = self.bits_site(root)

    def routes(self):
        return ()

    def make(self):
        self.made += 1
        return Page(b"text\n")

    def get(self, target=b"/a/page", method=b"GET", **headers):
        return self.ask(request(method, target, **headers))


class PageTests(AdminCase):
    """Everyone who can connect may see the pages."""

    def test_a_page_is_served_and_kept_by_nobody(self):
        response = self.get()
        self.assertEqual((response.status, response.body), (200, b"text\n"))
        self.assertEqual(response["Content-Type"], "text/plain; charset=utf-8")
        self.assertEqual(response["Cache-Control"], "no-store")
        self.assertEqual(response["X-Content-Type-Options"], "nosniff")

    def test_a_query_makes_no_difference(self):
        self.assertEqual(self.get(b"/a/page?x=y").status, 200)

    def test_head_has_the_head_only(self):
        peer = self.peer()
        peer.send(request(b"HEAD", b"/a/page"))
        head, _, body = peer.received().partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: 5", head)
        self.assertEqual(body, b"")

    def test_unknown_paths_are_answered_with_those_that_there_are(self):
        for target in (b"/", b"/a", b"/a/page/", b"/a/page/b", b"/%61/page"):
            response = self.get(target)
            self.assertEqual(response.status, 404)
            self.assertIn(b"\n/a/page\n", response.body)

    def test_other_methods_are_refused(self):
        for method in (b"POST", b"PUT", b"BITS_POST"):
            response = self.get(method=method)
            self.assertEqual((response.status, response["Allow"]), (405, "GET, HEAD"))
        self.assertEqual(self.made, 0)

    def test_a_packet_is_no_request_for_a_page(self):
        self.assertEqual(
            self.ask(packet(b"Ping", target=b"/a/page", host=b"localhost")).status, 405
        )

    def test_a_page_that_fails_is_logged_and_answered(self):
        self.site.resource._pages = {b"/a/page": lambda: 1 / 0}
        response = self.get()
        self.assertEqual((response.status, response.body), (500, b"internal error\n"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class HostTests(AdminCase):
    """Where nobody has to log in, other sites cannot give this machine their names."""

    def test_names_that_only_this_machine_can_have_are_taken(self):
        for host in (
            *(b"localhost", b"localhost:9100", b"LOCALHOST.", b"a.localhost"),
            *(b"txbits", b"127.0.0.1:9100", b"[::1]:9100", b"[::1]", b"192.0.2.1"),
        ):
            self.assertEqual(self.get(host=host).status, 200, host)

    def test_other_names_are_refused(self):
        for host in (
            *(b"evil.example", b"evil.example:9100", b"evil.example.", b"1.2.3.4.5"),
            *(b"localhost.evil.example", b"127.0.0.1.evil.example"),
        ):
            self.assertEqual(self.get(host=host).status, 403, host)
        self.assertEqual(self.made, 0)

    def test_a_program_that_names_none_is_no_browser(self):
        response = self.ask(b"GET /a/page HTTP/1.0\r\n\r\n")
        self.assertEqual(response.status, 200)

    def test_where_one_logs_in_every_name_is_taken(self):
        told = Authenticator(Identity("alice", "told"))
        self.operators = Operators(["alice"], lambda: [told])
        self.assertEqual(self.get(host=b"uploads.example.org").status, 200)


class OperatorTests(AdminCase):
    """Only operators may see the pages."""

    def setUp(self):
        super().setUp()
        self.authenticator = Authenticator()
        self.operators = Operators(["alice"], lambda: [self.authenticator])

    def refused(self, status, **headers):
        response = self.get(**headers)
        self.assertEqual(response.status, status)
        self.assertEqual(self.made, 0)
        return response

    def test_a_stranger_is_asked_for_credentials(self):
        response = self.refused(401)
        self.assertEqual(response["WWW-Authenticate"], "Told")

    def test_unknown_paths_are_not_told_to_strangers(self):
        self.assertEqual(self.get(b"/x").status, 401)

    def test_an_operator_sees_the_page(self):
        self.authenticator.answer = Identity("alice", "told")
        self.assertEqual(self.get().status, 200)

    def test_another_user_does_not(self):
        self.authenticator.answer = Identity("mallory", "told")
        self.refused(403)

    def test_an_upload_link_does_not_serve_even_with_the_name_of_an_operator(self):
        for name in ("alice", "link/alice"):
            self.authenticator.answer = Identity(
                name, "link", scope=Scope((), True, FULL_GRANT)
            )
            self.refused(403)

    def test_who_cannot_be_checked_now_is_asked_to_come_again(self):
        self.authenticator.answer = CredentialsUncheckable("busy", 7)
        self.assertEqual(self.refused(503)["Retry-After"], "7")

    def test_a_login_of_several_steps_is_gone_on_with(self):
        self.authenticator.answer = CredentialsIncomplete("step", b"Told 1")
        self.assertEqual(self.refused(401)["WWW-Authenticate"], "Told 1")

    def test_nobody_may_where_nobody_is_known(self):
        self.operators = Operators(["alice"], list)
        self.refused(403)

    def test_the_page_waits_for_the_check(self):
        self.authenticator.answer = asked = Deferred()
        peer = self.peer()
        peer.send(request(b"GET", b"/a/page"))
        self.assert_silent(peer)
        asked.callback(Identity("alice", "told"))
        self.assertEqual(self.answer(peer).status, 200)

    def test_who_has_gone_meanwhile_is_not_answered(self):
        self.authenticator.answer = asked = Deferred()
        peer = self.peer()
        peer.send(request(b"GET", b"/a/page"))
        peer.lose()
        asked.callback(Identity("alice", "told"))
        self.assertEqual(peer.received(), b"")


class RouteCase(AdminCase):
    """A site with routes, whose visits are kept."""

    def setUp(self):
        self.visits = []
        self.page = Page(b"done\n")
        super().setUp()
        self.tokens = self.site.resource._tokens

    def routes(self):
        return [
            Route("/things", {b"GET": self.visited}),
            Route(
                "/things/{one}",
                {b"GET": self.visited, b"POST": self.visited, b"DELETE": self.visited},
            ),
            Route("/things/{one}/parts/{other}", {b"POST": self.visited}),
        ]

    def visited(self, visit):
        self.visits.append(visit)
        return self.page

    def send(self, method, target, body=b"", **headers):
        length = b"%d" % len(body)
        return self.ask(
            request(method, target, body=body, content_length=length, **headers)
        )

    def post(self, target, body, **headers):
        headers.setdefault("content_type", b"application/x-www-form-urlencoded")
        return self.send(b"POST", target, body, **headers)


class RouteTests(RouteCase):
    """Which requests get where."""

    def test_parts_of_a_path_may_vary(self):
        self.assertEqual(self.get(b"/things/a%20b%2Fc").body, b"done\n")
        self.assertEqual(self.visits[0].parameters, {"one": "a b/c"})
        for target in (b"/things/", b"/things/a/", b"/things/a/parts", b"/thing/a"):
            self.assertEqual(self.get(target).status, 404, target)

    def test_a_query_is_read(self):
        self.get(b"/things?a=1&b=%C3%A4+x&a=2&c=")
        self.assertEqual(self.visits[0].query, {"a": "2", "b": "\xe4 x", "c": ""})

    def test_too_many_fields_are_refused(self):
        fields = b"&".join(b"a%d=1" % n for n in range(51))
        for response in (
            self.get(b"/things?" + fields),
            self.post(b"/things/a/parts/b", fields),
        ):
            self.assertEqual(response.status, 400)
            self.assertEqual(response.body, b"more than 50 fields\n")
        self.assertEqual(self.visits, [])

    def test_head_is_answered_like_get(self):
        peer = self.peer()
        peer.send(request(b"HEAD", b"/things"))
        head, _, body = peer.received().partition(b"\r\n\r\n")
        self.assertIn(b" 200 OK", head)
        self.assertEqual(body, b"")

    def test_other_methods_are_refused(self):
        for method in (b"POST", b"DELETE", b"PUT"):
            response = self.send(method, b"/things")
            self.assertEqual((response.status, response["Allow"]), (405, "GET, HEAD"))
        response = self.send(b"GET", b"/things/a/parts/b")
        self.assertEqual((response.status, response["Allow"]), (405, "POST"))
        self.assertEqual(self.visits, [])

    def test_a_route_may_answer_later_or_by_itself(self):
        async def later(visit):
            return self.page

        self.site.resource._routes = [Route("/later", {b"GET": later})]
        self.assertEqual(self.get(b"/later").body, b"done\n")
        self.page = None
        peer = self.peer()
        peer.send(request(b"GET", b"/later"))
        self.assertEqual(peer.received(), b"")

    def test_a_body_longer_than_a_form_is_refused(self):
        self.limits = Limits(max_other_body=100)
        self.site = self.bits_site(self.site.resource)
        self.assertEqual(self.post(b"/things/a", b"x=" + b"y" * 100).status, 413)


class ForgeryTests(RouteCase):
    """What another site may have caused changes nothing."""

    def test_a_form_with_its_token_is_taken(self):
        token = self.tokens.make(Caller())
        response = self.post(b"/things/a", b"token=%b&x=%%26" % token.encode())
        self.assertEqual(response.status, 200)
        self.assertEqual(self.visits[0].form["x"], "&")

    def test_a_form_without_one_is_refused(self):
        bob = self.tokens.make(Caller("bob"))
        for body in (b"", b"x=y", b"token=", b"token=" + bob.encode(), b"token=1-2"):
            response = self.post(b"/things/a", body)
            self.assertEqual(response.status, 403)
            self.assertIn(b"reload the page", response.body)
        self.assertEqual(self.visits, [])

    def test_a_post_that_is_no_form_is_refused(self):
        token = self.tokens.make(Caller()).encode()
        for kind in (b"text/plain", b"application/json", b"", None):
            response = self.post(b"/things/a", b"token=" + token, content_type=kind)
            self.assertEqual(response.status, 415)
        self.assertEqual(self.visits, [])

    def test_what_a_browser_says_another_site_causes_is_refused(self):
        token = self.tokens.make(Caller()).encode()
        for site in (b"cross-site", b"same-site", b"x"):
            for method in (b"POST", b"DELETE"):
                response = self.send(
                    method,
                    b"/things/a",
                    b"token=" + token if method == b"POST" else b"",
                    sec_fetch_site=site,
                    content_type=b"application/x-www-form-urlencoded",
                )
                self.assertEqual(response.status, 403)
        self.assertEqual(self.visits, [])

    def test_other_requests_are_taken(self):
        for site in (b"same-origin", b"none", None):
            response = self.send(b"DELETE", b"/things/a", sec_fetch_site=site)
            self.assertEqual(response.status, 200)

    def test_only_links_lead_here_from_other_sites(self):
        for kind, status in (
            (b"document", 200),
            (b"empty", 403),
            (b"image", 403),
            (b"iframe", 403),
            (None, 403),
        ):
            for target in (b"/things/a", b"/a/page"):
                response = self.send(
                    b"GET", target, sec_fetch_site=b"cross-site", sec_fetch_dest=kind
                )
                self.assertEqual(response.status, status, (target, kind))

    def test_a_preflight_permits_nothing(self):
        response = self.send(
            b"OPTIONS",
            b"/things/a",
            origin=b"https://evil.example",
            access_control_request_method=b"DELETE",
        )
        self.assertEqual(response.status, 405)
        self.assertIsNone(response["Access-Control-Allow-Origin"])

    def test_a_form_that_was_carried_out_leads_to_a_page(self):
        self.page = see_other(b"/things")
        token = self.tokens.make(Caller()).encode()
        response = self.post(b"/things/a", b"token=" + token)
        self.assertEqual((response.status, response["Location"]), (303, "/things"))


class RoutedOperatorTests(RouteCase):
    """Routes are for operators only, and know who it is."""

    def test_a_visit_knows_the_operator(self):
        authenticator = Authenticator(Identity("alice", "told"))
        self.operators = Operators(["alice"], lambda: [authenticator])
        self.get(b"/things")
        caller = self.visits[0].caller
        self.assertEqual((caller.user, caller.scheme), ("alice", "told"))
        self.assertEqual(caller.address, "192.0.2.1")

    def test_others_get_nowhere(self):
        self.operators = Operators(["alice"], lambda: [Authenticator()])
        for method in (b"GET", b"DELETE", b"POST"):
            self.assertEqual(self.send(method, b"/things/a").status, 401)
        self.assertEqual(self.visits, [])


class TokenTests(SynchronousTestCase):
    """The tokens of forms."""

    def setUp(self):
        self.now = 100.0
        self.tokens = FormTokens(lambda: self.now)
        self.alice = Caller("alice")
        self.token = self.tokens.make(self.alice)

    def test_a_token_is_of_one_user(self):
        self.assertTrue(self.tokens.check(self.token, self.alice))
        for other in (Caller("bob"), Caller()):
            self.assertFalse(self.tokens.check(self.token, other))

    def test_a_token_expires(self):
        self.now += LIFETIME - 2
        self.assertTrue(self.tokens.check(self.token, self.alice))
        self.now += 2
        self.assertFalse(self.tokens.check(self.token, self.alice))

    def test_a_token_cannot_be_changed(self):
        expires, _, signed = self.token.partition("-")
        for token in (
            f"{int(expires) + 1}-{signed}",
            f"0{self.token}",
            f"{expires}-{signed[:-1]}",
            f"{expires}-\ud800",
            f"\u0661-{signed}",
            "9" * 30 + f"-{signed}",
        ):
            self.assertFalse(self.tokens.check(token, self.alice), token)

    def test_another_process_has_other_tokens(self):
        self.assertFalse(FormTokens(lambda: 0.0).check(self.token, self.alice))

    def test_a_token_names_no_user(self):
        self.assertNotIn("alice", self.token)
        self.assertNotIn("_key", repr(self.tokens))
