"""
The rules of a virtual directory, and what things are called in the log.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from attrs.exceptions import FrozenInstanceError
from twisted.trial.unittest import SynchronousTestCase

import txbits.sessions
from txbits.sessions import Caller, Settings
from txbits.sessions.naming import destination_name, session_name
from txbits.sessions.settings import CLOSE_MEMORY


class SettingsTests(SynchronousTestCase):
    """``Settings``."""

    def test_the_defaults_are_those_of_iis(self) -> None:
        """But for BITSUploadEnabled: a directory is mounted to take uploads."""
        settings = Settings()
        self.assertTrue(settings.enabled)
        self.assertFalse(settings.allow_overwrites)
        self.assertFalse(settings.create_directories)
        self.assertIsNone(settings.max_upload_size)
        self.assertIsNone(settings.max_fragment_size)
        self.assertEqual(settings.session_timeout, 14 * 24 * 3600)
        self.assertIsNone(settings.session_limit)
        self.assertEqual(settings.sessions_of(is_user=True), 50)
        self.assertEqual(settings.sessions_of(is_user=False), 1000)
        self.assertEqual(settings.max_sessions, 100_000)
        self.assertIsNone(settings.user_quota)
        self.assertIsNone(settings.directory_quota)
        self.assertFalse(settings.adopt_anonymous_sessions)
        self.assertEqual(settings.cleanup_interval, 12 * 3600)
        self.assertEqual(settings.publish_on, "close")
        self.assertFalse(settings.allow_downloads)
        self.assertIsNone(settings.host_id)
        self.assertEqual(settings.host_id_fallback_timeout, 24 * 3600)

    def test_a_limit_that_is_set_holds_for_users_and_addresses(self) -> None:
        for limit in (0, 7):
            settings = Settings(session_limit=limit)
            self.assertEqual(settings.sessions_of(is_user=True), limit)
            self.assertEqual(settings.sessions_of(is_user=False), limit)

    def test_values_that_make_no_sense_are_refused(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"max_upload_size": -1},
            {"max_fragment_size": -1},
            {"session_timeout": 0},
            {"session_timeout": -1.5},
            {"session_limit": -1},
            {"max_sessions": -1},
            {"user_quota": -1},
            {"directory_quota": -1},
            {"cleanup_interval": 0},
            {"publish_on": "fragment"},
            {"host_id": ""},
            {"host_id": "http://uploads"},
            {"host_id_fallback_timeout": 0},
        ]
        for one in wrong:
            self.assertRaises(ValueError, Settings, **one)

    def test_no_size_is_too_large_if_the_maximum_is_0_or_none(self) -> None:
        for anything in (0, None):
            settings = Settings(max_upload_size=anything, max_fragment_size=anything)
            self.assertEqual(settings, Settings())

    def test_a_session_limit_holds_for_users_and_addresses(self) -> None:
        for limit in (0, 7):
            settings = Settings(session_limit=limit)
            for is_user in (True, False):
                self.assertEqual(settings.sessions_of(is_user=is_user), limit)

    def test_values_at_the_edge_are_taken(self) -> None:
        Settings(max_upload_size=1, max_fragment_size=1, session_limit=0)
        Settings(session_timeout=0.5, cleanup_interval=0.5)
        Settings(host_id="[::1]:8080", host_id_fallback_timeout=1)

    def test_they_are_named_not_counted(self) -> None:
        self.assertRaises(TypeError, Settings, True)

    def test_they_do_not_change(self) -> None:
        with self.assertRaises(FrozenInstanceError):
            Settings().enabled = False  # type: ignore[misc]

    def test_a_close_is_remembered_for_an_hour_at_least(self) -> None:
        self.assertGreaterEqual(CLOSE_MEMORY, 3600)


class NamesTests(SynchronousTestCase):
    """What is exported, and what things are called."""

    def test_what_is_public_is_exported(self) -> None:
        self.assertEqual(
            txbits.sessions.__all__,
            [
                "Caller",
                "IRequestBody",
                "OpenSession",
                "Received",
                "SessionManager",
                "Settings",
            ],
        )
        for name in txbits.sessions.__all__:
            self.assertIsNotNone(getattr(txbits.sessions, name).__doc__)

    def test_a_caller_is_anonymous_unless_told(self) -> None:
        self.assertEqual(Caller(), Caller(None, ""))

    def test_a_session_is_called_as_clients_call_it(self) -> None:
        self.assertEqual(
            session_name(UUID("7df0354d-249b-430f-820d-3d2a9bef4931")),
            "7DF0354D-249B-430F-820D-3D2A9BEF4931",
        )

    def test_a_destination_is_a_path(self) -> None:
        self.assertEqual(destination_name(("logs", "Tag ä.log")), "logs/Tag ä.log")
        self.assertEqual(destination_name(()), "")

    def test_a_destination_never_breaks_the_line(self) -> None:
        for hostile in ("a\nb", "a\r\nb", "a\0b", "\x1b[2J", "\u2028", "\udc80"):
            name = destination_name(("x", hostile))
            self.assertTrue(name.isprintable(), name)
            self.assertNotIn(hostile, name)
            name.encode("utf-8")
