"""
The JSON interface of open sessions.
"""

from __future__ import annotations

import json

from tests.admin.sessions import ON_FIRE, ListView, record
from tests.admin.support import request
from tests.web.support import Authenticator, WebCase
from txbits.admin import AdminResource
from txbits.admin.api import SessionsAPI
from txbits.admin.resource import Operators
from txbits.admin.tokens import FormTokens
from txbits.errors import ServerStopping
from txbits.interfaces import Identity

URL = b"/api/sessions"


class APICase(WebCase):
    """The interface over a list of sessions."""

    def setUp(self):
        super().setUp()
        self.view = ListView([record(n, owner=f"user {n % 2}") for n in range(1, 6)])
        self.operators = None
        root = AdminResource(
            {},
            lambda: self.operators,
            FormTokens(self.clock.seconds),
            SessionsAPI(self.view).routes(),
        )
        self.site = self.bits_site(root)

    def send(self, target, method=b"GET", status=200, **headers):
        """Send a request, and return what the JSON of the answer says."""
        response = self.ask(request(method, target, **headers))
        self.assertEqual(response.status, status, response.body)
        self.assertEqual(response["Content-Type"], "application/json")
        self.assertEqual(response["Cache-Control"], "no-store")
        return json.loads(response.body)

    def listed(self, query=b""):
        return [one["destination"] for one in self.send(URL + query)["sessions"]]

    def error(self, target, status, method=b"GET"):
        said = self.send(target, method, status)
        self.assertEqual(list(said), ["error"])
        return said["error"]


class ListTests(APICase):
    """GET of the list."""

    def test_all_sessions_are_listed(self):
        said = self.send(URL)
        self.assertEqual(list(said), ["sessions", "next", "faults"])
        self.assertEqual(
            said["sessions"], [one.as_json() for one in self.view.sessions]
        )
        self.assertEqual((said["next"], said["faults"]), (None, []))

    def test_each_has_what_is_promised(self):
        for name in (
            *("session", "directory", "destination", "owner", "client", "bytes"),
            *("total", "created", "last_progress", "state"),
        ):
            self.assertIn(name, self.send(URL)["sessions"][0])

    def test_pages_follow_one_another(self):
        found, target = [], URL + b"?limit=2"
        while True:
            said = self.send(target)
            found.append(len(said["sessions"]))
            if said["next"] is None:
                break
            target = URL + b"?limit=2&cursor=" + said["next"].encode()
        self.assertEqual(found, [2, 2, 1])

    def test_filters_are_those_of_the_view(self):
        self.assertEqual(self.listed(b"?owner=user+1&text=A/3"), ["a/3.txt"])
        self.assertEqual(self.listed(b"?owner="), [])
        self.assertEqual(len(self.listed(b"?directory=%2Flogs&idle=15m&state=")), 5)
        self.assertEqual(self.listed(b"?active=true"), [])
        self.assertEqual(self.listed(b"?idle=1h"), [])

    def test_what_is_no_filter_is_told(self):
        for query, words in (
            (b"ownr=x", "ownr: unknown parameter; there are: active, client, cursor"),
            (b"active=yes", "active: must be true or false"),
            (b"idle=long", "idle: 'long' is not a duration"),
            (b"state=old", "state: must be one of created, receiving"),
            (b"limit=0", "limit: must be a number from 1 to 500"),
            (b"limit=501", "limit: must"),
            (b"limit=" + b"9" * 5000, "limit: must"),
            (b"limit=%D9%A1", "limit: must"),
            (b"limit=0000000019999", "limit: must"),
            (b"limit=000000001" + b"0" * 5000, "limit: must"),
        ):
            self.assertIn(words, self.error(URL + b"?" + query, 400))

    def test_names_from_clients_are_ascii_in_json(self):
        self.view.sessions = [record(file_name="\udce4\u2028<")]
        response = self.ask(request(b"GET", URL))
        self.assertIn(rb'"\udce4\u2028<"', response.body)


class OneTests(APICase):
    """One session."""

    def setUp(self):
        super().setUp()
        self.one = self.view.sessions[2]
        self.url = URL + b"/" + self.one.session.encode()

    def test_a_session_is_shown(self):
        self.assertEqual(self.send(self.url), self.one.as_json())

    def test_an_unknown_one_is_not_there(self):
        for method in (b"GET", b"DELETE"):
            self.assertEqual(self.error(URL + b"/x", 404, method), "no such session")

    def test_delete_cancels_it(self):
        self.assertEqual(self.send(self.url, b"DELETE"), self.one.as_json())
        ((session, operator),) = self.view.cancelled
        self.assertEqual((session, operator.address), (self.one.session, "192.0.2.1"))

    def test_the_operator_is_known(self):
        authenticator = Authenticator(Identity("root", "told"))
        self.operators = Operators(["root"], lambda: [authenticator])
        self.send(self.url, b"DELETE")
        self.assertEqual(self.view.cancelled[0][1].user, "root")

    def test_others_cancel_nothing(self):
        authenticator = Authenticator(Identity("mallory", "told"))
        self.operators = Operators(["root"], lambda: [authenticator])
        self.assertEqual(self.ask(request(b"DELETE", self.url)).status, 403)
        self.assertEqual(self.view.cancelled, [])

    def test_another_site_cancels_nothing(self):
        response = self.ask(request(b"DELETE", self.url, sec_fetch_site=b"cross-site"))
        self.assertEqual(response.status, 403)
        self.assertEqual(self.ask(request(b"POST", self.url)).status, 405)
        self.assertEqual(self.view.cancelled, [])


class PurgeTests(APICase):
    """DELETE of the list."""

    def test_sessions_that_fit_are_cancelled(self):
        said = self.send(URL + b"?idle=10&owner=user+1&limit=3", b"DELETE")
        self.assertEqual(len(said["sessions"]), 2)
        self.assertEqual((said["next"], said["faults"]), ("3", ["one is left"]))
        self.assertEqual(len(self.view.cancelled), 2)

    def test_how_long_they_are_idle_is_required(self):
        for query in (b"", b"?owner=x", b"?idle="):
            words = self.error(URL + query, 400, b"DELETE")
            self.assertEqual(words, "idle: required, such as idle=7d")

    def test_an_empty_filter_cancels_nothing(self):
        for name in ("directory", "client", "scheme", "state", "active", "text"):
            words = self.error(URL + f"?idle=0&{name}=".encode(), 400, b"DELETE")
            self.assertEqual(words, f"{name}: must not be empty")
        self.assertEqual(self.view.cancelled, [])
        said = self.send(URL + b"?idle=0&owner=", b"DELETE")
        self.assertEqual(said["sessions"], [])

    def test_a_filter_with_a_typing_error_cancels_nothing(self):
        self.error(URL + b"?idle=0&ownr=x", 400, b"DELETE")
        self.assertEqual(self.view.cancelled, [])


class FaultTests(APICase):
    """The store fails."""

    def test_it_may_be_tried_again(self):
        for fault, seconds in ((ON_FIRE, "30"), (ServerStopping("stopping", 7), "7")):
            self.view.fault = fault
            for target in (URL, URL + b"/x"):
                response = self.ask(request(b"GET", target))
                self.assertEqual(response.status, 503)
                self.assertEqual(response["Retry-After"], seconds)
                self.assertEqual(json.loads(response.body), {"error": str(fault)})
