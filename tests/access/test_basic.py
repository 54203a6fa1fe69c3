"""
Basic authentication: password files, what clients send, what is remembered, and what
failures cost.

The hashes have the lowest cost, and are computed when the test lets them.
"""

from __future__ import annotations

import os
import subprocess
from base64 import b64encode
from pathlib import Path

import bcrypt
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.access.support import HeldThreads, authorized, basic
from txbits._ledger import Ledger
from txbits._workers import Worker
from txbits.access._checks import Checks
from txbits.access._threads import Queue
from txbits.access.basic import BasicAuthenticator, Passwords, read_basic
from txbits.errors import (
    CredentialsRejected,
    CredentialsUncheckable,
    InvalidSetting,
)
from txbits.interfaces import Credentials, IAuthenticator, Identity, IKnowing


def line(name, password, cost=4, prefix=b"2b"):
    """A line of a password file."""
    salt = bcrypt.gensalt(cost)
    stored = bcrypt.hashpw(password.encode(), salt)
    return f"{name}:{stored.replace(b'$2b$', b'$' + prefix + b'$').decode()}\n"


ALICE = Identity("alice", "basic")
BOTH = line("alice", "secret") + line("bob", "hidden")


class FileCase(SynchronousTestCase):
    """Files with passwords."""

    def file(self, text, mode=0o600):
        path = self.mktemp()
        Path(path).write_text(text, encoding="utf-8")
        os.chmod(path, mode)
        return path

    def passwords(self, text):
        return Passwords.read(self.file(text))


class PasswordsTests(FileCase):
    """``Passwords.read``."""

    def complaint(self, text, mode=0o600):
        path = self.file(text, mode)
        error = str(self.assertRaises(InvalidSetting, Passwords.read, path))
        self.assertNotIn("\n", error)
        for entry in text.splitlines():
            stored = entry.partition(":")[2]
            if stored:
                self.assertNotIn(stored, error)
        self.assertTrue(error.startswith(path), error)
        return error.removeprefix(path)

    def test_users_are_found_by_name(self):
        passwords = self.passwords("# staff\n" + BOTH + "\n")
        self.assertTrue(bcrypt.checkpw(b"secret", passwords.stored("alice")))
        self.assertIsNone(passwords.stored("carol"))

    def test_no_hash_is_in_its_representation(self):
        self.assertNotIn("$2", repr(self.passwords(BOTH)))

    def test_all_names_of_bcrypt_are_accepted(self):
        for prefix in (b"2a", b"2b", b"2y"):
            self.passwords(line("alice", "secret", prefix=prefix))

    def test_other_hashes_are_refused_by_the_number_of_their_line(self):
        for stored in (
            "$apr1$7PMmfDh2$XgDVJgGB3UCNX90Oq.0za/",
            "{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=",
            "4vZgxOr/JMK8g",
            "$6$eGQuzP32vNrFeywd$t5euEJ93QUpuHNUGXdOMsaqHqQ8hDC9r9HjeDtsppvXKYFNBYSA",
            "geheim",
            "",
            line("", "secret", prefix=b"2x").strip().removeprefix(":"),
            line("", "secret").strip().removeprefix(":")[:-1],
        ):
            self.assertEqual(
                self.complaint(f"{BOTH}\nzoë:{stored}\n"),
                ": line 4: the hash of 'zo\\xeb' is not one of bcrypt; "
                "run htpasswd -B for this user",
            )

    def test_a_cost_that_takes_minutes_is_refused(self):
        entry = line("alice", "secret")
        for cost in ("03", "18", "31"):
            self.assertRegex(
                self.complaint(entry.replace("$04$", f"${cost}$")),
                "^: line 1: the cost of the hash of 'alice' is not from 4 to 17",
            )

    def test_what_cannot_be_a_name_is_refused(self):
        for name in ("", "a/b", "..", "anonymous", "@staff", "a\tb"):
            self.assertIn("cannot be the name", self.complaint(line(name, "secret")))

    def test_lines_without_a_colon_and_names_given_twice_are_refused(self):
        self.assertEqual(
            self.complaint("geheim"), ": line 1 has no colon; write NAME:HASH"
        )
        self.assertRegex(
            self.complaint(BOTH + line("alice", "x")),
            "^: line 3 names 'alice' again; remove one",
        )

    def test_files_without_users_are_refused(self):
        for text in ("", "\n", "# nobody\n"):
            self.assertIn("must contain lines of htpasswd -B", self.complaint(text))

    def test_files_that_everyone_can_read_are_refused(self):
        self.assertIn("run chmod o-rw on it", self.complaint(BOTH, 0o644))


class ReadBasicTests(SynchronousTestCase):
    """``read_basic``: what clients send."""

    def read(self, pair):
        return read_basic(b64encode(pair))

    def test_the_password_begins_after_the_first_colon(self):
        self.assertEqual(self.read(b"alice:a:b"), ("alice", b"a:b"))
        self.assertEqual(self.read(b":"), ("", b""))

    def test_code_pages_of_windows_are_read_like_utf_8(self):
        expected = ("zoë", "pä€".encode())
        self.assertEqual(self.read("zoë:pä€".encode()), expected)
        self.assertEqual(self.read("zoë:pä€".encode("cp1252")), expected)
        self.assertEqual(self.read(b"zo\xeb:\x81"), ("zoë", b"\xc2\x81"))

    def test_what_is_malformed_is_rejected(self):
        for value in (b"", b"x", b"YQ", b"a:b", b"YTpi YTpi", b"YTpi\n"):
            self.assertRaises(CredentialsRejected, read_basic, value)
        for pair in (b"alice", b"a\0:b", b"a:b\n", b"a:\x7f"):
            self.assertRaises(CredentialsRejected, self.read, pair)

    @given(st.binary())
    def test_nothing_else_is_raised(self, value):
        for read in (read_basic, self.read):
            try:
                name, password = read(value)
            except CredentialsRejected:
                continue
            (name.encode() + password).decode()


class BasicCase(FileCase):
    """An authenticator whose hashes are computed one at a time."""

    def setUp(self):
        self.clock = Clock()
        self.threads = HeldThreads()
        self.checks = Checks(self.clock, queue=Queue(self.threads, 1, 4))
        self.authenticator = self.make(BOTH)

    def make(self, text, **more):
        return BasicAuthenticator(
            self.clock, self.passwords(text), checks=self.checks, **more
        )

    def ask(self, name="alice", password="secret", **more):
        return self.authenticator.authenticate(basic(name, password, **more))

    def check(self, *args, **more):
        asked = self.ask(*args, **more)
        self.threads.end_all()
        return asked

    def assert_wrong(self, asked):
        return self.failureResultOf(asked, CredentialsRejected).value

    def assert_throttled(self, asked):
        return self.failureResultOf(asked, CredentialsUncheckable).value.retry_after


class BasicTests(BasicCase):
    """``BasicAuthenticator``."""

    def test_it_is_an_authenticator(self):
        self.assertTrue(verifyObject(IAuthenticator, self.authenticator))
        self.assertTrue(verifyObject(IKnowing, self.authenticator))
        self.assertEqual(self.authenticator.scheme, "basic")

    def test_it_knows_who_can_log_in(self):
        self.assertTrue(self.authenticator.knows("alice"))
        self.assertFalse(self.authenticator.knows("mallory"))

    def test_it_asks_for_utf_8(self):
        self.assertEqual(
            self.authenticator.challenge(Credentials({})),
            b'Basic realm="txbits", charset="UTF-8"',
        )
        self.assertEqual(
            self.make(BOTH, realm='a "b" \\').challenge(Credentials({})),
            b'Basic realm="a \\"b\\" \\\\", charset="UTF-8"',
        )
        for realm in ("zoë", "a\nb"):
            self.assertRaises(InvalidSetting, self.make, BOTH, realm=realm)

    def test_users_are_known_by_their_passwords(self):
        self.assertEqual(self.successResultOf(self.check()), ALICE)
        asked = self.check("bob", "hidden")
        self.assertEqual(self.successResultOf(asked).name, "bob")

    def test_credentials_of_other_schemes_are_for_others(self):
        for credentials in (
            Credentials({}),
            authorized(b"Bearer YTpi"),
            authorized(b"NTLM TlRMTVNTUAAB"),
            authorized(b""),
        ):
            asked = self.authenticator.authenticate(credentials)
            self.assertIsNone(self.successResultOf(asked))

    def test_the_scheme_has_no_case(self):
        value = b"bAsIc  " + b64encode(b"alice:secret")
        asked = self.authenticator.authenticate(authorized(value))
        self.threads.end_all()
        self.assertEqual(self.successResultOf(asked), ALICE)

    def test_malformed_credentials_are_rejected_without_a_hash(self):
        for value in (b"Basic", b"Basic !", b"Basic YWxpY2U="):
            self.assert_wrong(self.authenticator.authenticate(authorized(value)))
        self.assertEqual(self.threads.count, 0)

    def test_wrong_passwords_and_unknown_names_get_the_same_answer(self):
        told = {
            str(self.assert_wrong(self.check(*pair))).replace("carol", "alice")
            for pair in (("alice", "wrong"), ("carol", "secret"), ("alice", "hidden"))
        }
        self.assertEqual(told, {"the name 'alice' or its password is wrong"})

    def test_an_unknown_name_costs_a_hash_of_the_file(self):
        asked = self.ask("carol", "secret")
        ((_, function, (password, stored)),) = self.threads.jobs
        self.assertIs(function, bcrypt.checkpw)
        self.assertEqual(password, b"secret")
        self.assertIn(stored.decode(), BOTH)
        self.threads.end_all()
        self.assert_wrong(asked)

    def test_an_unknown_name_always_gets_the_same_hash(self):
        compared = set()
        for _ in range(5):
            asked = self.ask("carol", "secret")
            compared.add(self.threads.jobs[0][2][1])
            self.threads.end_all()
            self.assert_wrong(asked)
        self.assertEqual(len(compared), 1)

    def test_an_unknown_name_is_wrong_even_with_the_password_it_is_compared_with(self):
        self.authenticator = self.make(line("alice", "secret"))
        self.assert_wrong(self.check("carol", "secret"))
        self.assert_wrong(self.check("carol", "secret"))

    def test_only_72_bytes_of_a_password_count(self):
        self.authenticator = self.make(line("alice", "x" * 72))
        for password in ("x" * 72, "x" * 73, "x" * 72 + "y" * 1000):
            self.assertEqual(self.successResultOf(self.check("alice", password)), ALICE)
        self.assert_wrong(self.check("alice", "x" * 71))

    def test_names_and_passwords_may_be_in_a_code_page(self):
        self.authenticator = self.make(line("zoë", "pä"))
        for encoding in ("utf-8", "latin-1"):
            asked = self.check("zoë".encode(encoding), "pä".encode(encoding))
            self.assertEqual(self.successResultOf(asked).name, "zoë")

    def test_names_that_cannot_be_a_user_s_are_wrong(self):
        for name in ("", "EXAMPLE\\alice", "../alice", "x" * 100_000):
            self.assert_wrong(self.check(name, "secret"))

    def test_no_secret_is_in_an_error_or_a_representation(self):
        for asked in (self.check("alice", "geheim"), self.check("carol", "geheim")):
            self.assertNotIn("geheim", str(self.assert_wrong(asked)))
        self.check()
        for one in (self.authenticator, self.checks):
            self.assertNotIn("secret", repr(one))
            self.assertNotIn("$2b$", repr(one))


class RememberingTests(BasicCase):
    """Successes are remembered, and shared."""

    def test_a_success_needs_no_other_hash_for_a_while(self):
        self.check()
        for _ in range(500):
            self.assertEqual(self.successResultOf(self.ask()), ALICE)
        self.assertEqual(self.threads.count, 1)
        self.clock.advance(601)
        self.assertNoResult(self.ask())
        self.assertEqual(self.threads.count, 2)

    def test_another_password_needs_its_hash(self):
        self.check()
        self.assert_wrong(self.check("alice", "wrong"))
        self.assertEqual(self.threads.count, 2)

    def test_failures_are_not_remembered(self):
        for _ in range(3):
            self.assert_wrong(self.check("alice", "wrong"))
        self.assertEqual(self.threads.count, 3)

    def test_those_who_ask_the_same_at_the_same_time_share_a_hash(self):
        asked = [self.ask() for _ in range(50)]
        wrong = [self.ask("alice", "wrong") for _ in range(50)]
        self.threads.end_all()
        self.assertEqual(self.threads.count, 2)
        for one in asked:
            self.assertEqual(self.successResultOf(one), ALICE)
        for one in wrong:
            self.assert_wrong(one)

    def test_one_who_hangs_up_does_not_end_what_others_wait_for(self):
        first, second = self.ask(), self.ask()
        first.addErrback(lambda _: None)
        first.cancel()
        self.threads.end_all()
        self.assertEqual(self.successResultOf(second), ALICE)

    def test_a_number_of_successes_is_remembered(self):
        self.checks.most_known = 2
        lines = [line(name, "secret") for name in ("a", "b", "c")]
        self.authenticator = self.make("".join(lines))
        for name in ("a", "b", "c", "b", "c"):
            self.successResultOf(self.check(name))
        self.assertEqual(self.threads.count, 3)
        self.check("a")
        self.assertEqual(self.threads.count, 4)


class ReloadTests(BasicCase):
    """Files that are read again."""

    def reload(self, text):
        replaced = self.authenticator
        self.authenticator = BasicAuthenticator(self.clock, self.passwords(text))
        self.authenticator.adopt(replaced)

    def test_a_user_who_stays_needs_no_other_hash(self):
        self.check()
        self.reload(BOTH + line("carol", "x"))
        self.assertEqual(self.successResultOf(self.ask()), ALICE)
        self.assertEqual(self.threads.count, 1)

    def test_a_user_who_is_gone_loses_the_next_packet(self):
        self.check()
        self.reload(line("bob", "hidden"))
        self.assert_wrong(self.check())

    def test_a_password_that_was_changed_loses_the_next_packet(self):
        self.check()
        self.reload(line("alice", "new") + line("bob", "hidden"))
        self.assert_wrong(self.check())
        self.assertEqual(self.successResultOf(self.check("alice", "new")), ALICE)

    def test_a_check_that_ends_after_a_user_is_gone_is_not_remembered_for_others(self):
        asked = self.ask()
        self.reload(line("bob", "hidden"))
        self.threads.end_all()
        self.assertEqual(self.successResultOf(asked), ALICE)
        self.assert_wrong(self.check())

    def test_failures_are_still_counted(self):
        for _ in range(10):
            self.assert_wrong(self.check("alice", "wrong"))
        self.reload(BOTH)
        self.assertEqual(self.assert_throttled(self.ask("alice", "wrong")), 10)


class ThrottlingTests(BasicCase):
    """Failures are limited, and never end a job."""

    def fails(self, times, name="alice", address="192.0.2.1"):
        for number in range(times):
            self.assert_wrong(self.check(name, f"wrong {number}", address=address))

    def test_after_some_failures_a_name_has_to_wait(self):
        for number in range(10):
            self.fails(1, address=f"192.0.2.{number}")
        self.assertEqual(self.assert_throttled(self.ask(address="198.51.100.1")), 10)
        self.assertEqual(self.threads.count, 10)
        self.clock.advance(10)
        self.assertEqual(self.successResultOf(self.check()), ALICE)

    def test_unknown_names_have_to_wait_like_others(self):
        self.fails(10, "carol")
        self.assertEqual(self.assert_throttled(self.ask("carol")), 10)

    def test_after_some_failures_an_address_has_to_wait(self):
        for number in range(20):
            self.fails(1, f"user{number}")
        self.assertEqual(self.assert_throttled(self.ask(address="192.0.2.1")), 5)
        asked = self.check(address="192.0.2.2")
        self.assertEqual(self.successResultOf(asked), ALICE)

    def test_all_addresses_of_a_network_of_ipv6_have_to_wait(self):
        for number in range(20):
            self.fails(1, f"user{number}", f"2001:db8::{number}")
        self.assert_throttled(self.ask(address="2001:db8::ffff"))
        asked = self.check(address="2001:db8:0:1::1")
        self.assertEqual(self.successResultOf(asked), ALICE)

    def test_clients_of_a_unix_socket_are_limited_by_name_only(self):
        for number in range(30):
            self.fails(1, f"user{number}", "-")
        self.assertEqual(self.successResultOf(self.check(address="-")), ALICE)

    def test_successes_cost_nothing(self):
        for _ in range(100):
            self.successResultOf(self.check())
            self.clock.advance(601)
            self.fails(1, "bob")
        self.assertEqual(self.threads.count, 200)

    def test_a_user_with_the_right_password_is_not_locked_out(self):
        self.check()
        for number in range(10):
            self.fails(1, address=f"192.0.2.{number}")
        self.assert_throttled(self.ask("alice", "wrong"))
        self.assertEqual(self.successResultOf(self.ask()), ALICE)
        # Not even when another hash is due, and the queue is full.
        self.clock.advance(601)
        self.fails(10, address="192.0.2.1")
        others = [self.ask(f"user{number}", "x") for number in range(5)]
        self.assert_throttled(self.ask("one more", "x"))
        asked = self.ask()
        self.assertEqual(self.threads.jobs[0][2][0], b"x")
        self.threads.end_one()
        self.threads.end_one()
        self.assertEqual(self.successResultOf(asked), ALICE)
        for one in others:
            one.addErrback(lambda _: None)
        self.threads.end_all()

    def test_checks_at_the_same_time_count_before_they_end(self):
        self.checks = Checks(self.clock, queue=Queue(self.threads, 100, 4))
        self.authenticator = self.make(BOTH)
        asked = [self.ask("alice", f"wrong {number}") for number in range(20)]
        self.assertEqual(self.threads.count, 10)
        self.threads.end_all()
        for one in asked[:10]:
            self.assert_wrong(one)
        for one in asked[10:]:
            self.assert_throttled(one)

    def test_a_full_queue_is_no_failure_of_the_client(self):
        waiting = [self.ask(f"user{number}", "x") for number in range(5)]
        for _ in range(100):
            self.assertEqual(self.assert_throttled(self.ask()), 5)
        self.threads.end_all()
        for one in waiting:
            self.assert_wrong(one)
        self.assertEqual(self.successResultOf(self.check()), ALICE)

    def test_an_error_of_the_hash_is_no_answer_about_the_password(self):
        def fails(*_):
            raise MemoryError

        asked = self.ask()
        done, _, _ = self.threads.jobs.pop()
        self.threads.jobs.append((done, fails, ()))
        self.threads.end_all()
        self.failureResultOf(asked, MemoryError)
        self.assertEqual(self.successResultOf(self.check()), ALICE)


class HtpasswdTests(TestCase):
    """Files that htpasswd has written, and hashes in threads."""

    def setUp(self):
        self.path = self.mktemp()
        Path(self.path).touch(0o600)

    def htpasswd(self, *options, password):
        subprocess.run(
            ["htpasswd", "-iB", *options, self.path, "alice"],
            input=password.encode(),
            stderr=subprocess.PIPE,
            check=True,
        )

    async def test_its_passwords_are_right(self):
        for options, password in (
            (("-C", "4"), "secret"),
            ((), "pä€: x"),
            (("-C", "4"), "x" * 200),
        ):
            self.htpasswd(*options, password=password)
            passwords = Passwords.read(self.path)
            authenticator = BasicAuthenticator(reactor, passwords)
            asked = authenticator.authenticate(basic("alice", password))
            self.assertEqual(await asked, ALICE)
            with self.assertRaises(CredentialsRejected):
                await authenticator.authenticate(basic("alice", "x" * 71))

    async def test_what_it_says_of_a_long_password_is_what_we_say(self):
        self.htpasswd("-C", "4", password="x" * 80)
        authenticator = BasicAuthenticator(reactor, Passwords.read(self.path))
        for password in ("x" * 71, "x" * 72, "x" * 72 + "y"):
            verified = subprocess.run(
                ["htpasswd", "-vb", self.path, "alice", password],
                stderr=subprocess.PIPE,
            )
            try:
                await authenticator.authenticate(basic("alice", password))
            except CredentialsRejected:
                is_right = False
            else:
                is_right = True
            self.assertEqual(is_right, verified.returncode == 0, password)


class LedgerThrottlingTests(ThrottlingTests):
    """A worker that has no other counts like a process that serves alone."""

    def make(self, text, **more):
        ledger = Ledger.create(1)
        self.addCleanup(ledger.close)
        ledger.seconds = self.clock.seconds
        self.checks.share(ledger, "basic")
        return super().make(text, **more)


class WorkersTests(FileCase):
    """Failures and successes in two workers."""

    def setUp(self):
        self.clock = Clock()
        self.supervisor = Ledger.create(2)
        self.addCleanup(self.supervisor.close)
        self.threads = [HeldThreads(), HeldThreads()]
        self.workers = [self.start(number, BOTH) for number in range(2)]

    def start(self, number, text):
        fd = os.dup(self.supervisor.fd)
        ledger = Ledger.open(fd, Worker(number, 2), self.clock.seconds)
        self.addCleanup(ledger.close)
        checks = Checks(self.clock, queue=Queue(self.threads[number], 1, 4))
        checks.share(ledger, "basic")
        return BasicAuthenticator(self.clock, self.passwords(text), checks=checks)

    def check(self, number, name="alice", password="secret", **more):
        asked = self.workers[number].authenticate(basic(name, password, **more))
        self.threads[number].end_all()
        return asked

    def fails(self, number, times, name="alice", address="192.0.2.1"):
        for other in range(times):
            asked = self.check(number, name, f"wrong {other}", address=address)
            self.failureResultOf(asked, CredentialsRejected)

    def assert_throttled(self, asked):
        return self.failureResultOf(asked, CredentialsUncheckable).value.retry_after

    def test_failures_of_a_name_count_in_both(self):
        self.fails(0, 5)
        self.fails(1, 5, address="198.51.100.1")
        for number in range(2):
            asked = self.check(number, address="203.0.113.1")
            self.assertEqual(self.assert_throttled(asked), 10)
        self.clock.advance(10)
        self.assertEqual(self.successResultOf(self.check(1)), ALICE)

    def test_failures_of_an_address_count_in_both(self):
        for number in range(20):
            self.fails(number % 2, 1, f"user{number}")
        for number in range(2):
            asked = self.check(number, address="192.0.2.1")
            self.assertEqual(self.assert_throttled(asked), 5)
        asked = self.check(1, address="192.0.2.2")
        self.assertEqual(self.successResultOf(asked), ALICE)

    def test_checks_at_the_same_time_count_before_they_end(self):
        asked = [
            self.workers[number % 2].authenticate(basic("alice", f"wrong {number}"))
            for number in range(12)
        ]
        for threads in self.threads:
            threads.end_all()
        results = [self.failureResultOf(one).type for one in asked]
        self.assertEqual(results.count(CredentialsRejected), 10)
        self.assertEqual(results[10:], [CredentialsUncheckable] * 2)

    def test_a_user_who_was_let_in_by_one_is_not_locked_out_of_the_other(self):
        self.successResultOf(self.check(0))
        self.fails(1, 10)
        self.assert_throttled(self.check(1, password="wrong"))
        self.assertEqual(self.successResultOf(self.check(1)), ALICE)

    def test_a_restarted_worker_remembers_that_too(self):
        self.successResultOf(self.check(0))
        self.fails(1, 10)
        self.workers[0] = self.start(0, BOTH)
        self.assertEqual(self.successResultOf(self.check(0)), ALICE)
        self.assert_throttled(self.check(0, password="wrong"))

    def test_each_worker_checks_by_itself(self):
        for number in range(2):
            self.successResultOf(self.check(number))
            self.assertEqual(self.threads[number].count, 1)

    def test_a_password_that_was_changed_is_one_that_never_was_right(self):
        self.successResultOf(self.check(0))
        self.workers = [
            self.start(number, line("alice", "another")) for number in range(2)
        ]
        self.fails(1, 10)
        for number in range(2):
            self.assert_throttled(self.check(number))

    def test_an_unknown_name_gets_the_same_hash_in_both(self):
        text = "".join(line(f"user{number}", "x") for number in range(50))
        for number in range(2):
            self.workers[number] = self.start(number, text)
        asked = [one.authenticate(basic("carol", "x")) for one in self.workers]
        (one,), (other,) = (threads.jobs for threads in self.threads)
        self.assertEqual(one[2], other[2])
        for number, threads in enumerate(self.threads):
            threads.end_all()
            self.failureResultOf(asked[number], CredentialsRejected)
