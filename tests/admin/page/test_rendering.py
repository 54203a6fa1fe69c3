"""
The HTML of the page: it says what is so, is well formed, and needs no inline styles.
"""

from __future__ import annotations

import re

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.page.support import NOW, Markup, glance, record, refused
from txbits.admin.page.glance import DirectoryState
from txbits.admin.page.listing import (
    AGES,
    MOST_SESSIONS,
    Busiest,
    Details,
    Filters,
    Listing,
    Overview,
    Purge,
    Sessions,
    state_words,
)
from txbits.admin.page.rendering import FOLDER, Document, Live, Message, flat, query_of
from txbits.admin.page.samples import MOST_SAMPLES, Rates
from txbits.admin.page.server import Health, Plots, Refusals, Server, line_of
from txbits.admin.sessions import STATES, SessionFilter
from txbits.protocol.refusals import REFUSALS


class RenderingCase(SynchronousTestCase):
    """Elements are written as HTML at once."""

    def html(self, element):
        return self.successResultOf(flat(element))

    def markup(self, element):
        return Markup(self.html(element))

    def text(self, element):
        return self.markup(element).text


class DocumentTests(RenderingCase):
    """A whole page."""

    def documents(self):
        many = evolve(glance().directories[0], sessions=1000)
        one = glance(busiest=(record(1), record(9)), directories=(many,))
        listing = Listing([record(1), record(2)], SessionFilter(), True, "2", ["fault"])
        yield Document(
            "Overview", "host", Overview(one, listing, "notice"), (Health(one), Live())
        )
        yield Document("Session", "host", Details(record(), "token"))
        yield Document("Purge", "host", Purge(question="?", idle="60", token="token"))
        yield Document("Message", "host", Message("Title", ["line"]))

    def test_it_has_no_inline_styles_and_scripts(self):
        for document in self.documents():
            for name, attributes in self.markup(document).elements:
                self.assertNotEqual(name, "style")
                for attribute, value in attributes.items():
                    self.assertNotEqual(attribute, "style")
                    self.assertFalse(attribute.startswith("on"), attribute)
                    self.assertNotIn("javascript:", value or "")
                if name == "script":
                    self.assertEqual(attributes["src"], "/page.js")

    def test_ids_are_unique_and_references_lead_to_them(self):
        for document in self.documents():
            found = [attributes for _, attributes in self.markup(document).elements]
            ids = [one["id"] for one in found if "id" in one]
            self.assertEqual(len(ids), len(set(ids)))
            wanted = {
                one["aria-labelledby"] for one in found if "aria-labelledby" in one
            }
            wanted |= {
                one["href"][1:]
                for one in found
                if (one.get("href") or "").startswith("#")
            }
            self.assertLessEqual(wanted, set(ids))

    def test_every_control_has_a_name(self):
        for document in self.documents():
            html = self.html(document).decode()
            labels = re.findall(r"<label>.*?</label>", html, re.DOTALL)
            named = sum(len(re.findall(r"<(?:input|select)", one)) for one in labels)
            hidden = html.count('type="hidden"')
            controls = len(re.findall(r"<(?:input|select)", html))
            self.assertEqual(named + hidden, controls)

    def test_it_has_one_heading_of_the_first_level(self):
        for document in self.documents():
            found = self.markup(document)
            self.assertEqual(len(found.of("h1")), 1)
            self.assertEqual(found.of("html")[0]["lang"], "en")

    def test_the_parts_that_are_sent_alone_have_their_ids(self):
        one, listing = glance(), Listing([], SessionFilter())
        for name, element in (
            ("health", Health(one)),
            ("plots", Plots(one.rates)),
            ("busiest", Busiest(one)),
            ("sessions", Sessions(listing, NOW)),
            ("refusals", Refusals(one)),
            ("server", Server(one)),
        ):
            self.assertEqual(self.markup(element).elements[0][1]["id"], name)

    def test_style_is_for_light_and_dark(self):
        style = (FOLDER / "style.css").read_text()
        self.assertIn("@media (prefers-color-scheme: dark)", style)
        light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
        names = [re.findall(r"--[\w-]+(?=:)", one) for one in (light, dark)]
        self.assertEqual(*names)

    def test_contrast_is_that_of_wcag_aa(self):
        style = (FOLDER / "style.css").read_text()
        for scheme in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
            colours = dict(re.findall(r"--([\w-]+): #(\w{6})", scheme))
            for ground in ("ground", "card", "bad-ground"):
                for text in ("text", "quiet", "link", "good", "bad"):
                    if ground != "bad-ground" or text == "text":
                        self.assert_readable(colours[text], colours[ground])
            self.assert_readable(colours["on-bad"], colours["bad"])
            self.assert_readable(colours["on-link"], colours["link"])
            # WCAG 1.4.11: graphics need less.
            for plot in ("plot", "plot-bad"):
                self.assert_readable(colours[plot], colours["card"], 3)
            self.assert_readable(colours["plot"], colours["bar"], 3)

    def assert_readable(self, one, other, least=4.5):
        light, dark = sorted(map(_luminance, (one, other)), reverse=True)
        self.assertGreaterEqual((light + 0.05) / (dark + 0.05), least, (one, other))


def _luminance(colour):
    """WCAG 2.1's relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    ]
    return sum(
        weight * part
        for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


class HealthTests(RenderingCase):
    """Whether the server is ready."""

    def test_it_is_told_in_words_and_not_only_by_colour(self):
        self.assertEqual(
            self.text(Health(glance())), "✓ Ready As of 2027-01-15 08:00:00 UTC"
        )

    def test_why_it_is_not(self):
        text = self.text(Health(glance(obstacles=("/logs: no", "/a: no"))))
        self.assertTrue(text.startswith("! Not ready /logs: no /a: no As of"), text)


class PlotTests(RenderingCase):
    """Small plots of the last hour."""

    def test_each_has_a_caption_and_a_summary_in_words(self):
        found = self.markup(Plots(glance().rates))
        self.assertEqual(
            [one["aria-label"] for one in found.of("svg")],
            [
                "Received in the last hour: now 1.0 KiB/s, peak 1.0 KiB/s",
                "Packets in the last hour: now 2.5/s, peak 2.5/s",
                "Open sessions in the last hour: now 3, peak 3",
                "Refusals in the last hour: now 0/s, peak 0/s",
            ],
        )
        self.assertIn("Open sessions 3 peak 3", found.text)

    def test_without_samples_there_is_no_line(self):
        found = self.markup(Plots(Rates()))
        self.assertEqual({one["d"] for one in found.of("path")}, {""})

    def test_the_latest_sample_is_at_the_right_edge(self):
        self.assertEqual(line_of([0.0, 10.0, 5.0]), "M357 47.0L358 2.0L359 24.5")

    @given(st.lists(st.floats(0, 1e15), min_size=1, max_size=MOST_SAMPLES))
    def test_every_point_is_within_the_plot(self, values):
        points = [one.split() for one in line_of(values)[1:].split("L")]
        self.assertEqual(len(points), len(values))
        for x, y in points:
            self.assertTrue(0 <= int(x) <= 359)
            self.assertTrue(2 <= float(y) <= 47)


class SessionTests(RenderingCase):
    """The sessions."""

    def sessions(self, *records, filters=None, **known):
        return Sessions(Listing(records, filters or SessionFilter(), **known), NOW)

    def test_a_row_has_who_what_and_how_much(self):
        one = record()
        found = self.markup(self.sessions(one))
        self.assertIn(
            "/logs/pc-1/today.log 512 B of 1.0 KiB (50 %) 2.0 KiB/s alice at 192.0.2.7 "
            "receiving just now Cancel…",
            found.text,
        )
        (bar,) = found.of("progress")
        self.assertEqual((bar["value"], bar["max"]), ("512", "1024"))
        self.assertEqual(
            {link["href"] for link in found.of("a")}, {f"/sessions/{one.session}"}
        )
        self.assertEqual(found.of("tr")[1]["id"], f"sessions-{one.session}")

    def test_what_is_not_known_is_left_out(self):
        found = self.markup(
            self.sessions(
                record(
                    destination=None,
                    owner=None,
                    client=None,
                    bytes=None,
                    total=None,
                    rate=None,
                    state=None,
                )
            )
        )
        self.assertIn(
            "/logs (session 00000000…) unknown - anonymous unknown", found.text
        )
        (bar,) = found.of("progress")
        self.assertEqual((bar["value"], bar["max"]), ("0", "1"))

    def test_an_empty_file_is_complete(self):
        (bar,) = self.markup(self.sessions(record(bytes=0, total=0))).of("progress")
        self.assertEqual((bar["value"], bar["max"]), ("1", "1"))

    def test_what_a_client_says_is_text(self):
        for known in (
            {"destination": "<script>x</script>\x1b[31m\u202e"},
            {"owner": '"><script>x</script>'},
            {"client": "<script>"},
        ):
            html = self.html(self.sessions(record(**known)))
            self.assertNotIn(b"<script", html)
            self.assertNotIn(b"\x1b", html)
            self.assertNotIn("\u202e", html.decode())
        html = self.html(Details(record(file_name="<script>\x1b"), "token"))
        self.assertNotIn(b"<script", html)
        self.assertNotIn(b"\x1b", html)

    def test_a_text_that_stands_in_for_nothing_is_a_text(self):
        for text in ("{{session}}", "0-", "\ue0000\ue001"):
            filters = SessionFilter(text=text)
            listing = Listing([record(destination="{{who}}")], filters)
            found = self.markup(Overview(glance(), listing, ""))
            self.assertEqual(found.of("input")[0]["value"], text)
            self.assertIn("/logs/{{who}}", found.text)
            self.assertEqual(len(found.of("progress")), 1)

    def test_no_sessions_are_told_in_words(self):
        for element, words in (
            (self.sessions(), "No session is open."),
            (
                self.sessions(filters=SessionFilter(owner="x")),
                "No open session matches.",
            ),
            (self.sessions(next="5"), "None on this page. Next page"),
            (self.sessions(is_first=False), "None on this page. First page"),
        ):
            self.assertEqual(self.text(element), words)

    def test_links_to_other_pages_keep_the_filters(self):
        filters = SessionFilter(text="a&b", active=True, idle=600.0)
        found = self.markup(
            self.sessions(record(), filters=filters, is_first=False, next="c")
        )
        self.assertEqual(
            [link["href"] for link in found.of("a")[2:]],
            [
                "/?idle=600&text=a%26b&state=active",
                "/?idle=600&text=a%26b&state=active&cursor=c",
            ],
        )
        self.assertEqual(query_of(SessionFilter()), "/")

    def test_faults_are_shown(self):
        self.assertIn("on fire", self.text(self.sessions(faults=["on fire"])))

    def test_every_state_has_words(self):
        for state in STATES:
            self.assertTrue(state_words(state).isprintable())
            self.assertNotIn("_", state_words(state))
        self.assertEqual(state_words(None), "unknown")

    def test_the_busiest_are_shown_where_there_are_too_many_to_see(self):
        directory = glance().directories[0]
        for count, rows in ((MOST_SESSIONS, 0), (MOST_SESSIONS + 1, 1)):
            known = evolve(directory, sessions=count)
            one = glance(busiest=(record(5),), directories=(known,))
            found = self.markup(Busiest(one))
            self.assertEqual("hidden" in found.of("section")[0], not rows)
            ids = [row["id"] for row in found.of("tr") if "id" in row]
            self.assertEqual(ids, [f"busiest-{record(5).session}"][:rows])
        self.assertIn("hidden", self.markup(Busiest(glance())).of("section")[0])

    def test_the_form_shows_what_is_filtered(self):
        filters = SessionFilter(
            text='"x"', directory="/a", active=True, idle=float(min(AGES))
        )
        found = self.markup(Filters(filters, ["/a", "/b"]))
        self.assertEqual(found.of("input")[0]["value"], '"x"')
        chosen = [one["value"] for one in found.of("option") if "selected" in one]
        self.assertEqual(chosen, ["/a", "active", "600"])
        self.assertIn("Show all", found.text)
        self.assertNotIn("Show all", self.text(Filters(SessionFilter(), [])))

    def test_details_are_all_that_is_known(self):
        text = self.text(Details(record(attempts=3), "token"))
        for words in (
            record().session,
            "C:\\today.log",
            "alice",
            "basic",
            "192.0.2.7",
            "512 B of 1.0 KiB (50 %)",
            "2.0 KiB/s",
            "receiving",
            "2027-01-15 07:58:20 UTC",
            "Requests to the application 3",
        ):
            self.assertIn(words, text)


class RefusalTests(RenderingCase):
    """The last refusals."""

    def test_causes_and_remedies_are_those_of_the_reference(self):
        for row in REFUSALS:
            text = self.text(Refusals(glance(refusals=(refused(row.name),))))
            self.assertIn(f"{row.cause} the detail {row.remedy}", text)

    def test_who_what_when_and_how_often(self):
        text = self.text(Refusals(glance(refusals=(refused(count=1234),))))
        self.assertIn(
            "bob at 192.0.2.8 Create-Session /logs/pc-2/today.log 403 0x80070005 1,234 "
            "07:59:00",
            text,
        )

    def test_none_is_told(self):
        text = self.text(Refusals(glance(refusals=())))
        self.assertEqual(text, "Refusals of the last 15 minutes None.")


class ServerTests(RenderingCase):
    """Directories, processes and certificates."""

    def test_a_directory_that_works_fails_or_is_disabled(self):
        works = glance().directories[0]
        fails = evolve(works, mount="/b", troubles=("no session can be created", "y"))
        disabled = DirectoryState("/c", "memory:", False, (), 0, 0, 0, 0)
        text = self.text(Server(glance(directories=(works, fails, disabled))))
        self.assertIn("/logs disk:/srv/logs ✓ works 3 4.0 KiB 1.0 GiB 0", text)
        self.assertIn("/b disk:/srv/logs ! no session can be created; y", text)
        self.assertIn("/c memory: disabled", text)

    def test_a_mount_leads_to_its_sessions(self):
        found = self.markup(Server(glance()))
        self.assertEqual(found.of("a")[0]["href"], "/?directory=%2Flogs")

    def test_certificates_tell_the_days_left(self):
        ends = (("a", 30.5), ("b", 1.5), ("c", -0.5))
        certificates = tuple((name, NOW + days * 86400) for name, days in ends)
        text = self.text(Server(glance(certificates=certificates)))
        self.assertIn("a: ✓ 30 days left (until 2027-02-14)", text)
        self.assertIn("b: ! 1 day left (until 2027-01-16)", text)
        self.assertIn("c: ! expired (until 2027-01-14)", text)

    def test_without_certificates(self):
        text = self.text(Server(glance(certificates=())))
        self.assertIn("No https: listener.", text)
