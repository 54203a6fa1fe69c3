"""
The library of the system takes tokens as they are: of its own client, of Windows, wrong
and broken ones; and what it says is sorted into faults of clients and of the server.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.kerberos import SERVICE, kdc
from tests.kerberos.tokens import (
    KERBEROS,
    KERBEROS_OID,
    NTLM,
    NTLM_OID,
    SPNEGO,
    WINDOWS_OID,
    initiator,
    offer,
    reply,
)
from txbits.access._acceptor import LibraryAcceptor
from txbits.access._keytab import check_keytab
from txbits.access._steps import Suspicious, Unusable
from txbits.errors import CredentialsRejected

ALICE = "alice@EXAMPLE.TEST"


class AcceptorCase(SynchronousTestCase):
    """An acceptor with the key of the service, and a user with a ticket."""

    def setUp(self):
        self.keytab = kdc().keytab()
        self.acceptor = LibraryAcceptor(self.keytab, "HTTP")
        self.cache = kdc().log_in("alice")

    def token(self, mechanism=SPNEGO, **more):
        return initiator(self.cache, mechanism, **more).step()

    def refused(self, token, words="", error=CredentialsRejected):
        with self.assertRaisesRegex(error, words) as caught:
            self.acceptor.step(None, token)
        self.assertTrue(str(caught.exception).isprintable())
        return caught.exception


class TicketTests(AcceptorCase):
    """Tokens with a ticket."""

    def test_one_token_logs_in_and_the_answer_proves_the_server(self):
        for mechanism in (SPNEGO, KERBEROS):
            client = initiator(self.cache, mechanism)
            step = self.acceptor.step(None, client.step())
            self.assertEqual(step.principal, ALICE)
            client.step(step.token)
            self.assertTrue(client.complete)

    def test_lifetime_is_that_of_the_ticket_and_five_minutes(self):
        step = self.acceptor.step(None, self.token())
        self.assertLessEqual(step.lifetime, 3900)
        self.assertGreater(step.lifetime, 3000)

    def test_login_of_several_tokens(self):
        client = initiator(self.cache, dce=True)
        step = self.acceptor.step(None, client.step())
        self.assertIsNone(step.principal)
        step = self.acceptor.step(step.context, client.step(step.token))
        self.assertEqual(step.principal, ALICE)

    def test_windows_names_kerberos_by_a_wrong_identifier(self):
        token = offer(WINDOWS_OID, KERBEROS_OID, NTLM_OID, token=self.token(KERBEROS))
        step = self.acceptor.step(None, token)
        self.assertEqual(step.principal, ALICE)

    def test_client_that_prefers_ntlm_is_led_to_kerberos(self):
        step = self.acceptor.step(None, offer(NTLM_OID, KERBEROS_OID, token=NTLM))
        self.assertIsNone(step.principal)
        self.assertIn(KERBEROS_OID, step.token)
        step = self.acceptor.step(step.context, reply(self.token(KERBEROS)))
        # What is left is the client's seal on the choice.
        self.assertNotIn(b"NTLM", step.token)

    def test_names_with_an_instance_are_told_with_it(self):
        self.cache = kdc().log_in("bob/admin")
        step = self.acceptor.step(None, self.token())
        self.assertEqual(step.principal, "bob/admin@EXAMPLE.TEST")


class FaultOfClientTests(AcceptorCase):
    """What a client is refused for."""

    def setUp(self):
        super().setUp()
        self.whole = [self.token(mechanism) for mechanism in (SPNEGO, KERBEROS)]

    def test_replayed_token(self):
        for mechanism in (SPNEGO, KERBEROS):
            token = self.token(mechanism)
            self.acceptor.step(None, token)
            self.refused(token, "^Request is a replay$")

    def test_ticket_for_another_service(self):
        kdc().keytab("HTTP/other.test")
        token = self.token(host="other.test")
        self.assertIn(
            "a name of the server",
            self.refused(token, "HTTP/other.test@.* not found", Suspicious).suspicion,
        )

    def test_clock_that_differs(self):
        self.token()
        # The library keeps in the cache how far the KDC's clock is from its own.
        path = Path(self.cache)
        content = bytearray(path.read_bytes())
        self.assertEqual(content[:8], b"\5\4\0\x0c\0\1\0\x08")
        content[8:12] = struct.pack(">i", 3000)
        path.write_bytes(content)
        self.assertIn(
            "clock",
            self.refused(self.token(), "Clock skew too great", Suspicious).suspicion,
        )

    def test_key_that_is_not_the_kdcs(self):
        content = bytearray(Path(self.keytab).read_bytes())
        # The last byte of a key; a version of four bytes follows it.
        content[-5] ^= 1
        Path(self.keytab).write_bytes(content)
        self.assertIn(
            "keytab",
            self.refused(self.token(KERBEROS), "cannot decrypt", Suspicious).suspicion,
        )

    def test_ntlm_within_spnego(self):
        self.refused(offer(NTLM_OID, token=NTLM))
        self.refused(offer(NTLM_OID, KERBEROS_OID, token=NTLM)[:-10])

    def test_tokens_of_other_mechanisms(self):
        iakerb = bytes.fromhex("06062b0601050205")
        for token in (b"", b"x", NTLM, b"\x60\x08" + iakerb, b"\xa1\x02\x30\x00"):
            self.refused(token, "not one of Kerberos")

    @settings(max_examples=300)
    @given(data=st.data())
    def test_broken_tokens(self, data):
        token = bytearray(data.draw(st.sampled_from(self.whole)))
        for _ in range(data.draw(st.integers(1, 4))):
            if token:
                where = data.draw(st.integers(0, len(token) - 1))
                change = data.draw(st.sampled_from(["cut", "add", "change"]))
                if change == "cut":
                    del token[where:]
                elif change == "add":
                    token.insert(where, data.draw(st.integers(0, 255)))
                else:
                    token[where] = data.draw(st.integers(0, 255))
        try:
            self.acceptor.step(None, bytes(token))
        except CredentialsRejected:
            pass
        except Unusable as error:
            # A key that the keytab does not have, as far as the token says.
            self.assertFalse(error.is_general)


class ExpiredTicketTests(TestCase):
    """A ticket of some seconds."""

    async def test_expired_ticket(self):
        # The usual five minutes for clocks that differ are added to a ticket's end.
        usual = kdc().environment["KRB5_CONFIG"]
        self.addCleanup(os.environ.__setitem__, "KRB5_CONFIG", usual)
        os.environ["KRB5_CONFIG"] = str(kdc().config(skew=1))
        acceptor = LibraryAcceptor(kdc().keytab(), "HTTP")
        cache = kdc().log_in("alice", lifetime="3s")
        step = acceptor.step(None, initiator(cache).step())
        self.assertLessEqual(step.lifetime, 4)
        token = initiator(cache).step()
        await deferLater(reactor, step.lifetime + 1, lambda: None)
        with self.assertRaisesRegex(CredentialsRejected, "[Ee]xpired"):
            acceptor.step(None, token)


class FaultOfServerTests(AcceptorCase):
    """What a client is asked to come back for."""

    def assert_unusable(self, words, *, is_general):
        error = self.refused(self.token(), words, Unusable)
        self.assertEqual(error.is_general, is_general)

    def test_keytab_that_is_gone_and_comes_back(self):
        for acceptor in (self.acceptor, LibraryAcceptor(self.keytab, "HTTP")):
            self.acceptor = acceptor
            path = Path(self.keytab)
            away = path.rename(f"{path}-away")
            self.assert_unusable("cannot be read: No such file", is_general=True)
            away.rename(path)
            self.assertEqual(acceptor.step(None, self.token()).principal, ALICE)

    def test_keytab_that_is_something_else(self):
        self.acceptor.step(None, self.token())
        Path(self.keytab).write_bytes(b"something else")
        self.assert_unusable("is not a keytab", is_general=True)

    def test_replay_cache_that_cannot_be_written(self):
        usual = kdc().environment["KRB5RCACHENAME"]
        self.addCleanup(os.environ.__setitem__, "KRB5RCACHENAME", usual)
        os.environ["KRB5RCACHENAME"] = "file2:/nonexistent/replays"
        self.assert_unusable("/nonexistent/replays", is_general=False)

    def test_new_key_that_the_keytab_does_not_have_yet(self):
        kdc().change_key()
        self.cache = kdc().log_in("alice")
        self.assert_unusable(
            "kvno . not found in keytab; keytab is likely out of date; export the "
            "keytab again",
            is_general=False,
        )

    def test_old_key_that_the_keytab_does_not_have_any_more(self):
        self.token()
        kdc().change_key()
        self.acceptor = LibraryAcceptor(kdc().keytab(), "HTTP")
        self.assert_unusable("ticket is likely out of date", is_general=False)


class NewKeyTests(AcceptorCase):
    """A service that changes its key."""

    def test_keytab_with_both_keys_takes_old_and_new_tickets(self):
        old = self.token()
        kdc().change_key()
        kdc().administer(f"ktadd -k {self.keytab} -norandkey {SERVICE}")
        self.cache = kdc().log_in("alice")
        found = sorted(one.version for one in check_keytab(self.keytab))
        self.assertEqual(len(set(found)), 2)
        for token in (old, self.token()):
            self.assertEqual(self.acceptor.step(None, token).principal, ALICE)

    def test_keys_of_other_services_do_not_count(self):
        keytab = kdc().keytab(SERVICE, "cifs/localhost")
        self.acceptor = LibraryAcceptor(keytab, "cifs")
        self.refused(self.token(), "does not match server principal cifs/")
