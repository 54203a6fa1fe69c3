"""
The operator's page in a real browser.
"""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

import bcrypt
from twisted.internet.defer import inlineCallbacks

from tests.browser.support import DESK, PHONE, BrowserCase
from txbits.admin.page.overview import MOST_SESSIONS
from txbits.errors import BackendError
from txbits.sessions import Caller

#: After how many events the memory of the browser must be as before: those of ten
#: minutes.
_EVENTS = 300

_NAMES = ("a/today.log", "b/minidump.dmp", "c/" + "very-long-name-" * 12 + ".zip")


class LookTests(BrowserCase):
    """How the page looks, with few sessions and many, at a desk and on a phone."""

    @inlineCallbacks
    def make_some(self):
        self.make_history()
        for name in _NAMES:
            session_id = yield self.create(name)
            yield self.send(session_id, name, 0, 1000, 4000)

    @inlineCallbacks
    def make_many(self):
        self.make_history()
        active = self.manager("/logs")._active
        active.failed("store", BackendError("the disk is on fire"))
        for number in range(10_000 - len(_NAMES)):
            yield self.create(
                f"pc-{number}/system.evtx", caller=Caller("bob", "192.0.2.8")
            )
        for name in _NAMES:
            session_id = yield self.create(name)
            yield self.send(session_id, name, 0, 1000, 4000)

    def look_at(self, count):
        shown = min(count, MOST_SESSIONS)
        grounds = {}
        for scheme in ("light", "dark"):
            for name, size in (("desk", DESK), ("phone", PHONE)):
                self.look(size, scheme)
                self.visit_live()
                self.shoot(f"{count}-{name}-{scheme}")
                self.assertEqual(len(self.find("#sessions tbody tr")), shown)
                # Nothing is wider than the window, and nothing hides anything.
                self.assertLessEqual(
                    self.script("document.documentElement.scrollWidth"), size[0]
                )
                self.assertEqual(self.script(_OVERLAPPING), [])
                grounds[scheme] = self.script(
                    "getComputedStyle(document.body).backgroundColor"
                )
        self.assertEqual(
            grounds, {"light": "rgb(251, 251, 252)", "dark": "rgb(15, 19, 24)"}
        )

    def test_no_sessions(self):
        def look():
            self.look_at(0)
            self.assertIn("No session is open.", self.text())

        return self.in_browser(look)

    @inlineCallbacks
    def test_three_sessions(self):
        yield self.make_some()
        yield self.in_browser(self.look_at, 3)

    @inlineCallbacks
    def test_ten_thousand_sessions(self):
        yield self.make_many()

        def look():
            self.look_at(10_000)
            # What is shown, and sent, does not depend on how many there are.
            self.assertEqual(len(self.find("#busiest tbody tr")), len(_NAMES))
            html = self.script("document.documentElement.outerHTML")
            self.assertLess(len(html), 100_000)
            self.follow("#sessions nav a[rel=next]")
            self.wait("location.search.includes('cursor')")
            self.assertEqual(len(self.find("#sessions tbody tr")), MOST_SESSIONS)

        yield self.in_browser(look)


#: Pairs of cards, cells and controls that are on top of each other.
_OVERLAPPING = """(() => {
  const found = [];
  for (const parent of document.querySelectorAll("header, .plots, tr, form, dl")) {
    const boxes = [...parent.children].map((one) => [one, one.getBoundingClientRect()]);
    for (const [one, a] of boxes) for (const [other, b] of boxes) {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const along = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (one !== other && across > 1.5 && along > 1.5
          && getComputedStyle(one).position !== "absolute"
          && getComputedStyle(other).position !== "absolute") {
        found.push(one.outerHTML.slice(0, 80) + " / " + other.outerHTML.slice(0, 80));
      }
    }
  }
  return found;
})()"""


class SnapshotTests(BrowserCase):
    """Without JavaScript, the page is a snapshot in which everything works."""

    def without_scripts(self):
        self.command("Emulation.setScriptExecutionDisabled", value=True)
        self.visit()

    @inlineCallbacks
    def test_it_shows_filters_and_cancels(self):
        yield self.create("a/one.log")
        yield self.create("b/two.log")

        def act():
            self.without_scripts()
            self.assertIn("Snapshot", self.text("header"))
            self.assertEqual(
                [one for one in self.find("#pause") if one.is_displayed()], []
            )
            self.assertEqual(len(self.find("#sessions tbody tr")), 2)
            self.the("input[name=text]").send_keys("TWO")
            self.follow(".filters button")
            self.assertEqual(len(self.find("#sessions tbody tr")), 1)
            self.follow("td.action a")
            self.assertIn("/logs/b/two.log", self.text("h2"))
            self.follow("button.danger")
            self.assertIn("is no longer open.", self.text(".notice"))
            self.assertEqual(self.the("#sessions tbody th").text, "/logs/a/one.log")

        yield self.in_browser(act)
        self.assertEqual(self.manager("/logs").open_sessions, 1)

    @inlineCallbacks
    def test_it_cancels_old_sessions(self):
        yield self.create("a/one.log")

        def act():
            self.without_scripts()
            self.follow(".purge button")
            self.assertIn("No session has been without progress", self.text())

        yield self.in_browser(act)


class KeyboardTests(BrowserCase):
    """Everything can be done, and seen, with the keyboard."""

    def focused(self):
        return self.script("document.activeElement.textContent.trim()")

    def tab_to(self, text, most=60):
        """Press Tab until an element with this text has the focus."""
        from selenium.webdriver.common.keys import Keys

        for _ in range(most):
            self.press(Keys.TAB)
            outline = self.script(
                "getComputedStyle(document.activeElement).outlineStyle"
            )
            self.assertNotEqual(outline, "none", "the focus cannot be seen")
            if self.focused() == text:
                return
        self.fail(f"no way to {text}")

    @inlineCallbacks
    def test_a_session_is_cancelled(self):
        from selenium.webdriver.common.keys import Keys

        yield self.create("a/one.log")

        def act():
            self.visit_live()
            self.tab_to("Skip to the content", 1)
            self.press(Keys.ENTER)
            self.assertEqual(self.script("document.activeElement.id"), "main")
            self.tab_to("Cancel…")
            self.press(Keys.ENTER)
            self.wait("location.pathname.startsWith('/sessions/')")
            self.tab_to("Cancel this session")
            self.press(Keys.ENTER)
            self.wait("document.querySelector('.notice') !== null")

        yield self.in_browser(act)
        self.assertEqual(self.manager("/logs").open_sessions, 0)

    @inlineCallbacks
    def test_the_focus_stays_where_it_is_while_the_page_changes(self):
        for name in ("one", "two", "three"):
            yield self.create(f"a/{name}.log")

        def act():
            self.visit_live()
            first, second, third = [
                row.get_attribute("id").removeprefix("sessions-")
                for row in self.find("tr[id]")
            ]
            name = self.text(f"#sessions-{second} th")
            self.tab_to(name)
            left = 3
            for session in (first, third):
                end = self.manager("/logs").end_session
                self.on_reactor(end, UUID(session), Caller())
                left -= 1
                self.wait(f"document.querySelectorAll('tr[id]').length === {left}")
                self.assertEqual(self.focused(), name)
            self.on_reactor(self.create, "a/four.log")
            self.wait("document.querySelectorAll('tr[id]').length === 2")
            self.assertEqual(self.focused(), name)

        yield self.in_browser(act)


class LoginTests(BrowserCase):
    """Only operators see the page."""

    def settings(self):
        self.passwords = Path(self.mktemp()).absolute()
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
        self.passwords.write_text(f"alice:{hashed}\nbob:{hashed}\n")
        self.passwords.chmod(0o600)
        return self.settings_for("alice")

    def settings_for(self, user):
        return (
            'listen = ["tcp:0:interface=127.0.0.1"]\n'
            'admin-listen = "tcp:0:interface=127.0.0.1"\n'
            f'admin-users = ["{user}"]\n'
            '[[directory]]\nmount = "/logs"\nbackend = "memory:"\n'
            f'authenticate = ["basic"]\npassword-file = "{self.passwords}"\n'
            '[[directory.permission]]\nusers = ["*"]\npath = "/"\nmay = ["upload"]\n'
        )

    @inlineCallbacks
    def test_who_is_no_operator_any_more_sees_nothing_more(self):
        self.expected = ["status of 401", "status of 403"]
        yield self.create("a/one.log")

        def act():
            self.log_in("mallory:secret")
            self.visit()
            self.assertEqual(self.text(), "")
            self.log_in("alice:secret")
            self.visit_live()
            self.assertEqual(len(self.find("#sessions tbody tr")), 1)
            self.path.write_text(self.settings_for("bob"))
            self.on_reactor(self.process.hang_up)
            self.wait("document.getElementById('live').textContent.startsWith('Not')")
            self.visit()
            self.assertEqual(self.text(), "not permitted")

        yield self.in_browser(act)


class ReaderTests(BrowserCase):
    """What a screen reader is told."""

    def tree(self):
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]

    @inlineCallbacks
    def test_it_finds_the_same_at_a_desk_and_on_a_phone(self):
        yield self.create("a/one.log")
        yield self.send((yield self.create("b/two.log")), "b/two.log", 0, 10, 20)

        def act():
            for size in (DESK, PHONE):
                self.look(size, "light")
                self.visit_live()
                tree = self.tree()
                for expected in (
                    ("heading", "Sessions"),
                    ("table", "Sessions"),
                    ("columnheader", "Received"),
                    ("rowheader", "/logs/a/one.log"),
                    ("progressbar", "10 B of 20 B (50 %)"),
                    ("link", "Cancel /logs/a/one.log"),
                    ("searchbox", "Search"),
                    ("combobox", "Directory"),
                    ("search", "Filter sessions"),
                    ("button", "Pause"),
                    ("region", "Refusals of the last 15 minutes"),
                    ("navigation", "Parts of this page"),
                ):
                    self.assertIn(expected, tree)
                images = [name for role, name in tree if role == "image"]
                self.assertEqual(len(images), 4, images)
                for name in images:
                    self.assertIn("in the last hour: now", name)
                for role in ("link", "button", "combobox", "searchbox"):
                    self.assertNotIn((role, ""), tree)

        yield self.in_browser(act)

    def test_only_what_matters_is_read_out_when_it_changes(self):
        def act():
            self.visit_live()
            live = self.find("[role=status], [role=alert], [aria-live]")
            self.assertEqual(
                [one.text for one in live if one.is_displayed()], ["✓ Ready", "Live"]
            )

        return self.in_browser(act)


class LiveTests(BrowserCase):
    """The page changes by itself."""

    ROWS = "document.querySelectorAll('#sessions tbody tr').length"

    @inlineCallbacks
    def test_sessions_come_progress_and_go(self):
        def act():
            self.visit_live()
            self.script("document.querySelector('input[name=text]').value = 'typed'")
            session_id = self.on_reactor(self.create, "a/one.log")
            self.wait(f"{self.ROWS} === 1")
            self.on_reactor(self.send, session_id, "a/one.log", 0, 500, 1000)
            self.wait("document.querySelector('progress')?.value === 500")
            self.on_reactor(self.manager("/logs").end_session, session_id, Caller())
            self.wait(f"{self.ROWS} === 0")
            self.assertIn("No session is open.", self.text("#sessions"))
            self.assertEqual(
                self.the("input[name=text]").get_property("value"), "typed"
            )

        yield self.in_browser(act)

    @inlineCallbacks
    def test_a_pause_keeps_the_page_as_it_is(self):
        def act():
            self.visit_live()
            self.the("#pause").click()
            self.wait("document.getElementById('live').textContent === 'Paused'")
            while self.on_reactor(len, self.streams):
                time.sleep(0.05)
            self.on_reactor(self.create, "a/one.log")
            self.assertEqual(self.script(self.ROWS), 0)
            self.the("#pause").click()
            self.wait(f"{self.ROWS} === 1")

        yield self.in_browser(act)

    @inlineCallbacks
    def test_a_server_that_is_away_is_told_and_comes_back(self):
        self.expected = ["net::ERR_"]

        def act():
            self.visit_live()
            self.on_reactor(self.port.stopListening)
            self.on_reactor(self.streams.stop)
            self.wait("document.getElementById('live').textContent.startsWith('Not')")
            self.on_reactor(self.streams.start)
            self.on_reactor(self.port.startListening)
            self.wait("document.getElementById('live').textContent === 'Live'")

        yield self.in_browser(act)

    @inlineCallbacks
    def test_the_memory_of_the_browser_is_steady(self):
        """
        The events of ten minutes come faster than usual. In each, some sessions have
        progress, one goes, and another one comes.
        """
        self.streams.interval = 0.01
        sessions = {}
        for number in range(MOST_SESSIONS):
            name = f"pc-{number}/a.log"
            sessions[name] = yield self.create(name)

        @inlineCallbacks
        def change(number):
            for name, session_id in [*sessions.items()][-5:]:
                yield self.send(session_id, name, 0, number + 1, 10_000)
            name = next(iter(sessions))
            gone = sessions.pop(name)
            yield self.manager("/logs").end_session(gone, Caller())
            sessions[name] = yield self.create(name)

        def act():
            self.visit_live()
            self.browser.execute_script(_COUNT_EVENTS)
            self.command("Performance.enable")
            measured = []
            for number in range(_EVENTS):
                self.on_reactor(change, number)
                self.wait(f"window.events > {number}")
                if not number % (_EVENTS // 20):
                    measured.append(self.measure())
            self.command("Performance.disable")
            return measured

        measured = yield self.in_browser(act)
        half = len(measured) // 2
        for name in measured[0]:
            # What was used once may be freed later, so the least is what is kept.
            before = min(one[name] for one in measured[1:half])
            after = min(one[name] for one in measured[half:])
            self.assertLess(after, 1.1 * before, [name, measured])

    def measure(self):
        """What the page takes, without what can be freed."""
        self.command("HeapProfiler.collectGarbage")
        found = self.command("Performance.getMetrics")["metrics"]
        values = {one["name"]: one["value"] for one in found}
        return {
            name: values[name]
            for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners", "Documents")
        }


#: Counts the changes of the table of sessions.
_COUNT_EVENTS = """
window.events = 0;
new MutationObserver(() => window.events++).observe(
  document.getElementById("sessions"),
  { attributes: true, characterData: true, childList: true, subtree: true },
);
"""
