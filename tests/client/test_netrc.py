"""
Passwords from netrc files, as curl finds them.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.client._netrc import password_of


class NetrcTests(SynchronousTestCase):
    """The password of ``me`` at ``h.example``."""

    def assert_found(self, text: str, expected: str | None) -> None:
        self.assertEqual(password_of("me", "h.example", text), expected, text)

    def test_words_stand_on_as_many_lines_as_one_likes(self) -> None:
        for text in (
            "machine h.example login me password p",
            "machine h.example\n\tlogin me\n\tpassword p\n",
            "machine h.example\r\nlogin me\r\npassword p\r\n",
            "machine\nh.example\n\nlogin\nme\n\npassword\np",
            "machine h.example password p login me",
            "MACHINE H.Example LOGIN me PASSWORD p",
        ):
            self.assert_found(text, "p")

    def test_entries_of_others_are_passed_over(self) -> None:
        self.assert_found(
            "machine other login me password no\n"
            "machine h.example login you password no\n"
            "machine h.example login me password p\n"
            "machine h.example login me password no\n",
            "p",
        )
        self.assert_found("machine h.example login you password no", None)
        self.assert_found("machine h.example login Me password no", None)

    def test_one_without_a_login_is_for_everybody(self) -> None:
        self.assert_found("machine h.example password p", "p")

    def test_one_without_a_password_is_passed_over(self) -> None:
        self.assert_found("machine h.example login me", None)
        self.assert_found("machine h.example login me default password p", "p")

    def test_the_default_is_for_all_hosts(self) -> None:
        self.assert_found("default login me password p", "p")
        self.assert_found("machine other password no default password p", "p")
        self.assert_found("default password p machine h.example password no", "p")

    def test_a_password_may_be_nothing(self) -> None:
        self.assert_found('machine h.example login me password ""', "")

    def test_quotes_hold_words_together(self) -> None:
        self.assert_found(
            r'machine "h.example" login "me" password "a \"b\" \\ \t\n\r\x"',
            'a "b" \\ \t\n\rx',
        )
        self.assert_found('machine h.example login me password a"b"c', 'a"b"c')
        self.assert_found("machine h.example login me password a\\b", "a\\b")

    def test_a_quote_without_end_is_an_error(self) -> None:
        for text in ('"', 'machine h.example password "p', r'default password "p\"'):
            self.assertRaises(ValueError, password_of, "me", "h.example", text)

    def test_a_line_may_be_a_comment_and_the_rest_of_one_may_not(self) -> None:
        self.assert_found(
            "# machine h.example password no\n"
            "machine h.example # password no\n  # password no\npassword p#1\n",
            "p#1",
        )

    def test_macros_are_passed_over(self) -> None:
        macro = "macdef init\nmachine h.example password no\nlogin me\n\n"
        self.assert_found(macro + "machine h.example login me password p", "p")
        self.assert_found("machine h.example password p\n" + macro, "p")
        self.assert_found("macdef init\npassword no", None)

    def test_words_that_are_not_known_are_passed_over(self) -> None:
        self.assert_found("machine h.example port 443 login me password p", "p")
        self.assert_found("machine h.example account password login me", None)
        self.assert_found("machine h.example sesame", None)
        self.assert_found("password no machine h.example login", None)

    def test_a_port_counts_nowhere(self) -> None:
        self.assert_found("machine h.example:443 password no", None)

    def test_an_address_has_no_brackets(self) -> None:
        text = "machine 2001:db8::1 login me password p"
        self.assertEqual(password_of("me", "2001:db8::1", text), "p")

    @given(st.text(st.sampled_from('machine logpsword"\\#\n\r\t default'), max_size=60))
    def test_nothing_else_is_raised(self, text: str) -> None:
        try:
            password_of("me", "h", text)
        except ValueError as error:
            self.assertEqual(str(error), "unterminated quote")
