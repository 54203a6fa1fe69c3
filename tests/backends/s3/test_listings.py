"""
Pages of listings: where they end, and that they do.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.s3._listings import Pages, goes_on, listed, told
from txbits.backends.s3._responses import Response, S3Unfit


class GoesOnTests(SynchronousTestCase):
    """Whether another page follows."""

    def said(self, text, count=0, most=10):
        body = f"<ListPartsResult>{text}</ListPartsResult>".encode()
        return goes_on("ListParts", Response(200, {}, body, {}, False), count, most)

    def test_it_says_so(self):
        for text in ("true", "True", " TRUE\n", "1"):
            self.assertTrue(self.said(f"<IsTruncated>{text}</IsTruncated>"))
        for text in ("false", "False", "0", ""):
            self.assertFalse(self.said(f"<IsTruncated>{text}</IsTruncated>"))

    def test_no_name_of_an_object_says_so(self):
        name = "<Key>IsTruncated&gt;false&lt;/IsTruncated>false</Key>"
        self.assertTrue(self.said(f"{name}<IsTruncated>true</IsTruncated>"))

    def test_it_says_something_else(self):
        with self.assertRaises(S3Unfit):
            self.said("<IsTruncated>maybe</IsTruncated>")

    def test_it_says_nothing(self):
        self.assertFalse(self.said("", 9))
        with self.assertRaises(S3Unfit):
            self.said("", 10)


class PagesTests(SynchronousTestCase):
    """Pages that are turned."""

    def setUp(self):
        self.pages = Pages("ListParts", 1000)

    def fails(self, words, *args):
        with self.assertRaisesRegex(S3Unfit, words):
            self.pages.turn(*args)

    def test_each_begins_elsewhere(self):
        for number in range(1000):
            self.pages.turn(f"marker {number}", f"first {number}")

    def test_a_marker_must_be_told(self):
        self.fails("but not where", None, "first")
        self.fails("but not where", "", "first")

    def test_it_must_not_move_in_a_circle(self):
        self.pages.turn("a", "1")
        self.pages.turn("b", "2")
        self.fails("same place twice", "a", "3")

    def test_a_page_must_not_come_again(self):
        self.pages.turn("a", "1")
        self.fails("same page", "b", "1")

    def test_some_may_be_bare(self):
        for number in range(100):
            self.pages.turn(f"marker {number}", None)
        self.pages.turn("entries", "1")
        for number in range(100, 200):
            self.pages.turn(f"marker {number}", None)

    def test_not_all(self):
        for number in range(100):
            self.pages.turn(f"marker {number}", None)
        self.fails("end", "another", None)

    def test_there_are_not_too_many(self):
        for number in range(1000):
            self.pages.turn(f"marker {number}", f"first {number}")
        self.fails("end", "another", "another")


class ListedTests(SynchronousTestCase):
    """Keys."""

    def test_they_are_as_the_store_says(self):
        for key, is_encoded, read in (
            ("in/a+b%2Bc", True, "in/a b+c"),
            ("in/a+b%2Bc", False, "in/a+b%2Bc"),
        ):
            self.assertEqual(listed("ListObjectsV2", key, is_encoded, "in/"), read)

    def test_or_it_is_told(self):
        for key, is_encoded in (("in%2F%7Ba", False), ("out/{a", True)):
            with self.assertRaises(S3Unfit):
                listed("ListObjectsV2", key, is_encoded, "in/{")


class ToldTests(SynchronousTestCase):
    """Entries."""

    def test_they_have_what_they_need(self):
        self.assertEqual(told("ListParts", {"Size": 0}, "Size"), 0)
        with self.assertRaisesRegex(S3Unfit, "ListParts.*ETag"):
            told("ListParts", {"Size": 0}, "ETag")
