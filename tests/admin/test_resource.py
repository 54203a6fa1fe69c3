"""
The pages of the operator's listener, and who may see them.
"""

from twisted.internet.defer import Deferred

from tests.web.support import Authenticator, WebCase, packet, request
from txbits.admin import AdminResource, Page
from txbits.admin.resource import Operators
from txbits.admin.tokens import FormTokens
from txbits.errors import CredentialsIncomplete, CredentialsUncheckable
from txbits.interfaces import FULL_GRANT, Identity, Scope


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
        self.assertEqual(self.ask(packet(b"Ping", target=b"/a/page")).status, 405)

    def test_a_page_that_fails_is_logged_and_answered(self):
        self.site.resource._pages = {b"/a/page": lambda: 1 / 0}
        response = self.get()
        self.assertEqual((response.status, response.body), (500, b"internal error\n"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


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
