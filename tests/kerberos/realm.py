"""
The realm that the other tests use.
"""

from __future__ import annotations

import gssapi
from twisted.trial.unittest import SynchronousTestCase

from tests.kerberos import REALM, kdc


class RealmTests(SynchronousTestCase):
    """A realm of MIT Kerberos, in a temporary folder."""

    def test_user_gets_a_ticket(self) -> None:
        cache = kdc().log_in("alice")
        found = gssapi.Credentials(usage="initiate", store={"ccache": cache})
        self.assertEqual(str(found.name), f"alice@{REALM}")

    def test_stopped_kdc_gives_no_ticket(self) -> None:
        kdc().stop()
        self.addCleanup(kdc().start)
        with self.assertRaisesRegex(AssertionError, "Cannot contact any KDC"):
            kdc().log_in("alice")
