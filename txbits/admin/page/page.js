// Keeps the page up to date: the server sends parts of it as HTML, each with an id, and
// the part with that id is changed where it differs. Elements stay, and with them the
// focus, the selection and the position of a reader.
"use strict";

const RETRY_SECONDS = 15;

const live = document.getElementById("live");
const pause = document.getElementById("pause");
let events = null;
let retry = null;

// Say something, but only once: the text is read out.
function tell(text) {
  if (live.textContent !== text) live.textContent = text;
}

function changeAttributes(old, now) {
  for (const { name } of [...old.attributes]) {
    if (!now.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of now.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function isSame(old, now) {
  return old.nodeName === now.nodeName && (old.id || "") === (now.id || "");
}

function change(old, now) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
    return;
  }
  changeAttributes(old, now);
  const kept = new Set([...now.children].map((one) => one.id).filter(Boolean));
  for (const child of [...old.children]) {
    if (child.id && !kept.has(child.id)) child.remove();
  }
  const byId = new Map([...old.children].map((one) => [one.id, one]));
  let place = old.firstChild;
  for (const child of [...now.childNodes]) {
    const known = child.id && byId.get(child.id);
    // An element that is moved loses the focus: rather remove what is before it.
    while (known && place !== null && !kept.has(place.id)) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
    if (place !== null && isSame(place, child)) {
      change(place, child);
      place = place.nextSibling;
    } else if (known) {
      old.insertBefore(known, place);
      change(known, child);
    } else {
      old.insertBefore(document.importNode(child, true), place);
    }
  }
  while (place !== null) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function take(event) {
  const parsed = new DOMParser().parseFromString(event.data, "text/html");
  for (const part of parsed.body.children) {
    const old = document.getElementById(part.id);
    if (old !== null) change(old, part);
  }
}

function stop() {
  clearTimeout(retry);
  retry = null;
  if (events !== null) events.close();
  events = null;
}

function start() {
  stop();
  if (document.hidden || pause.getAttribute("aria-pressed") === "true") return;
  events = new EventSource("/events" + location.search);
  events.onopen = () => tell("Live");
  events.addEventListener("parts", take);
  events.onerror = () => {
    tell("Not live: no connection to the server");
    if (events !== null && events.readyState === EventSource.CLOSED) {
      // It has refused, for example since too many pages are open.
      retry = setTimeout(start, RETRY_SECONDS * 1000);
    }
  };
}

if (pause !== null) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    const isPaused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(isPaused));
    if (isPaused) tell("Paused");
    start();
  });
  document.addEventListener("visibilitychange", start);
  start();
}
