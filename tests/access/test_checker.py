"""
Authentication by checkers of ``twisted.cred``.
"""

from __future__ import annotations

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.access.support import authorized, basic
from txbits._ledger import Ledger
from txbits.access.checker import CheckerAuthenticator
from txbits.errors import (
    CredentialsRejected,
    CredentialsUncheckable,
    InvalidSetting,
)
from txbits.interfaces import Credentials, IAuthenticator, Identity


@implementer(ICredentialsChecker)
class Checker:
    """Answers when the test does."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self):
        self.asked = []
        self.waiting = []

    def requestAvatarId(self, credentials):
        self.asked.append((credentials.username, credentials.password))
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self, outcome):
        self.waiting.pop(0).callback(outcome)

    def fail(self, error):
        self.waiting.pop(0).errback(error)


class CheckerTests(SynchronousTestCase):
    """``CheckerAuthenticator``."""

    def setUp(self):
        self.clock = Clock()
        self.checker = Checker()
        self.authenticator = CheckerAuthenticator(self.clock, self.checker)
        self.warnings = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event):
        if event["log_level"] is LogLevel.warn:
            self.warnings.append(event)

    def ask(self, name="alice", password="secret"):
        return self.authenticator.authenticate(basic(name, password))

    def test_it_is_an_authenticator(self):
        self.assertTrue(verifyObject(IAuthenticator, self.authenticator))

    def test_it_challenges_like_the_scheme_basic(self):
        self.assertEqual(
            self.authenticator.challenge(Credentials({})),
            b'Basic realm="txbits", charset="UTF-8"',
        )

    def test_what_is_no_such_checker_is_refused(self):
        for checker in (object(), AllowAnonymousAccess()):
            self.assertRaises(InvalidSetting, CheckerAuthenticator, self.clock, checker)

    def test_checkers_of_twisted_work(self):
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")
        self.authenticator = CheckerAuthenticator(self.clock, checker, scheme="mine")
        self.assertEqual(self.successResultOf(self.ask()), Identity("alice", "mine"))
        self.failureResultOf(self.ask("alice", "wrong"), CredentialsRejected)

    def test_names_and_passwords_are_in_utf_8(self):
        self.ask("zoë", "pä")
        self.assertEqual(self.checker.asked, [("zoë".encode(), "pä".encode())])

    def test_a_checker_names_the_user_as_it_likes(self):
        groups = Identity("bob", "mine", frozenset({"staff"}))
        for number, (avatar, identity) in enumerate(
            (
                (b"al", Identity("al", "basic")),
                ("zoë", Identity("zoë", "basic")),
                (groups, groups),
            )
        ):
            asked = self.ask(f"user{number}")
            self.checker.answer(avatar)
            self.assertEqual(self.successResultOf(asked), identity)

    def test_a_name_that_cannot_be_a_user_s_is_rejected(self):
        asked = self.ask()
        self.checker.answer("a/b")
        self.failureResultOf(asked, CredentialsRejected)
        self.assertEqual(self.warnings, [])

    def test_an_unauthorized_login_is_rejected(self):
        asked = self.ask()
        self.checker.fail(UnauthorizedLogin("the account is locked"))
        error = self.failureResultOf(asked, CredentialsRejected).value
        self.assertEqual(str(error), "the name 'alice' or its password is wrong")

    def test_a_success_is_remembered_for_a_minute(self):
        self.ask()
        self.checker.answer("alice")
        for _ in range(100):
            self.successResultOf(self.ask())
        self.assertEqual(len(self.checker.asked), 1)
        self.clock.advance(61)
        self.assertNoResult(self.ask())

    def test_a_user_who_was_removed_is_forgotten(self):
        self.ask()
        self.checker.answer("alice")
        self.clock.advance(61)
        asked = self.ask()
        self.checker.fail(UnauthorizedLogin())
        self.failureResultOf(asked, CredentialsRejected)
        self.assertNoResult(self.ask())

    def test_those_who_ask_the_same_share_a_check(self):
        asked = [self.ask() for _ in range(10)]
        self.assertEqual(len(self.checker.asked), 1)
        self.checker.answer("alice")
        for one in asked:
            self.assertEqual(self.successResultOf(one).name, "alice")

    def test_any_other_failure_means_later_and_is_logged_once_a_minute(self):
        for error in (
            ConnectionRefusedError("no\nserver"),
            UnhandledCredentials(),
            ZeroDivisionError(),
        ):
            asked = self.ask()
            self.checker.fail(error)
            failure = self.failureResultOf(asked, CredentialsUncheckable)
            self.assertEqual(failure.value.retry_after, 30)
        (event,) = self.warnings
        self.assertEqual(
            event["reason"], "Checker failed: ConnectionRefusedError: no server"
        )

    def test_what_is_no_name_means_later(self):
        for avatar in ((), None, 1, b"\xff"):
            asked = self.ask()
            self.checker.answer(avatar)
            self.failureResultOf(asked, CredentialsUncheckable)

    def test_a_checker_that_raises_means_later(self):
        @implementer(ICredentialsChecker)
        class Raises:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials):
                raise RuntimeError("bug")

        self.authenticator = CheckerAuthenticator(self.clock, Raises())
        self.failureResultOf(self.ask(), CredentialsUncheckable)

    def test_a_checker_that_does_not_answer_is_given_up(self):
        asked = self.ask()
        self.clock.advance(30)
        self.failureResultOf(asked, CredentialsUncheckable)

    def test_workers_count_failures_together_and_know_whom_they_have_let_in(self):
        ledger = Ledger.create(1)
        self.addCleanup(ledger.close)
        ledger.seconds = self.clock.seconds
        others = CheckerAuthenticator(self.clock, self.checker)
        for one in (self.authenticator, others):
            one.share(ledger, "mine")
        right = self.ask()
        self.checker.answer(b"alice")
        self.successResultOf(right)
        for number in range(10):
            asked = others.authenticate(basic("alice", f"wrong {number}"))
            self.checker.fail(UnauthorizedLogin())
            self.failureResultOf(asked, CredentialsRejected)
        self.failureResultOf(self.ask("alice", "wrong"), CredentialsUncheckable)
        right = others.authenticate(basic("alice", "secret"))
        self.checker.answer(b"alice")
        self.successResultOf(right)
        # A reload goes on with that.
        reloaded = CheckerAuthenticator(self.clock, self.checker)
        reloaded.share(ledger, "mine")
        reloaded.adopt(others)
        asked = reloaded.authenticate(basic("alice", "wrong"))
        self.failureResultOf(asked, CredentialsUncheckable)

    def test_its_failures_cost_a_user_no_try(self):
        for _ in range(50):
            asked = self.ask()
            self.checker.fail(ConnectionError())
            self.failureResultOf(asked, CredentialsUncheckable)
        self.assertNoResult(self.ask())

    def test_wrong_passwords_are_limited_also_after_a_reload(self):
        for _ in range(10):
            asked = self.ask()
            self.checker.fail(UnauthorizedLogin())
            self.failureResultOf(asked, CredentialsRejected)
        replaced = self.authenticator
        self.authenticator = CheckerAuthenticator(self.clock, self.checker)
        self.authenticator.adopt(replaced)
        self.failureResultOf(self.ask(), CredentialsUncheckable)

    def test_after_a_reload_successes_are_checked_again(self):
        self.ask()
        self.checker.answer("alice")
        replaced = self.authenticator
        self.authenticator = CheckerAuthenticator(self.clock, self.checker)
        self.authenticator.adopt(replaced)
        self.assertNoResult(self.ask())

    def test_the_number_of_checks_at_a_time_is_limited(self):
        asked = [
            self.authenticator.authenticate(
                basic(f"u{number}", "x", address=f"192.0.2.{number % 250}")
            )
            for number in range(273)
        ]
        self.assertEqual(len(self.checker.asked), 16)
        self.failureResultOf(asked[-1], CredentialsUncheckable)

    def test_credentials_of_other_schemes_are_for_others(self):
        for credentials in (Credentials({}), authorized(b"Bearer x")):
            asked = self.authenticator.authenticate(credentials)
            self.assertIsNone(self.successResultOf(asked))
        asked = self.authenticator.authenticate(authorized(b"Basic x"))
        self.failureResultOf(asked, CredentialsRejected)
