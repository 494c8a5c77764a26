// What a page of the panel can do with a script. Without it every page works all the same, and stands still.
//
// Live: the server says that something changed, the page asks for itself again, and what carries `data-live` is made like
// the new one, node by node. So focus, selection, scroll, what was typed, ticked or opened, all stay as they were.

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector, within = document) => within.querySelector(selector);
const root = document.documentElement;

// -- light and dark -----------------------------------------------------------------------------------------------------

const THEMES = { auto: "as the system", light: "light", dark: "dark" };

function stored(name, value) {
  try {
    return value === undefined ? localStorage.getItem(name) : localStorage.setItem(name, value);
  } catch {
    return null; // a browser that keeps nothing
  }
}

function showTheme(theme) {
  Object.assign(root.dataset, { js: "", theme });
  const button = one("#theme");
  if (!button) return;
  button.setAttribute("aria-label", (button.title = `Theme: ${THEMES[theme]}`));
  one("use", button).setAttribute("href", `#i-theme-${theme}`);
}

function nextTheme() {
  const names = Object.keys(THEMES), next = names[(names.indexOf(root.dataset.theme) + 1) % names.length];
  stored("onward-theme", next);
  showTheme(next);
  say(`Theme: ${THEMES[next]}`);
}

showTheme(THEMES[stored("onward-theme")] ? stored("onward-theme") : "auto");

// -- times that go on ---------------------------------------------------------------------------------------------------

let ahead = 0; // of the server's clock before this one, in ms

function readClock(from) {
  ahead = Date.parse(from.body.dataset.now) - Date.now() || 0;
}

function inWords(seconds) { // as `length` of explain.py says it, in whole seconds
  const whole = Math.max(Math.floor(seconds), 0);
  for (const [unit, name, below, small] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    const rest = Math.floor((whole % unit) / below);
    if (whole >= unit) return `${Math.floor(whole / unit)} ${name}${rest ? ` ${rest} ${small}` : ""}`;
  }
  return `${whole} s`;
}

const TICKS = { ago: (s) => `${inWords(s)} ago`, age: inWords, in: (s) => (s < 0 ? `in ${inWords(-s)}` : "now") };

function tick() {
  if (document.hidden) return;
  for (const time of all("time[data-tick]")) {
    const text = TICKS[time.dataset.tick]?.((Date.now() + ahead - Date.parse(time.dateTime)) / 1000);
    if (text && time.textContent !== text) time.textContent = text;
  }
}

// -- what a screen reader is told: a summary now and then, and never each change ----------------------------------------

const SAY_APART = 10_000; // ms
const say = (text) => (one("#said").textContent = text);
const summary = () => all("[data-said]").map((node) => node.textContent.replace(/\s+/g, " ").trim()).join(". ");
let saidAt = -Infinity, saidLast = summary();

function sayWhatChanged() {
  const text = summary();
  if (text === saidLast || performance.now() - saidAt < SAY_APART) return;
  [saidAt, saidLast] = [performance.now(), text];
  say(text);
}

// -- making one tree like another ---------------------------------------------------------------------------------------

const GONE_MAX = 20; // rows
const OURS = new Set(["open", "data-selected"]); // attributes that a person changes
// Not `node.id`: a form with a field called "id" answers that field.
const keyOf = (node) => (node.nodeType === 1 && (node.getAttribute("id") || node.getAttribute("data-row"))) || "";
const isBlank = (node) => node?.nodeType === 3 && !node.data.trim();

function likeThat(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== 1) return void (old.data = fresh.data);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !OURS.has(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value && !OURS.has(name)) old.setAttribute(name, value);
  const wanted = new Set([...fresh.childNodes].map(keyOf).filter(Boolean));
  const known = new Map([...old.children].map((node) => [keyOf(node), node]));
  let here = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    while (here && keyOf(here) && !wanted.has(keyOf(here))) here = leave(here, wanted);
    const key = keyOf(next);
    const match = key ? known.get(key) : here && !keyOf(here) && here.nodeName === next.nodeName ? here : null;
    if (match?.nodeName !== next.nodeName) {
      old.insertBefore(next, here);
      continue;
    }
    while (isBlank(here) && here.nextSibling === match) here = match; // what is not moved keeps its focus
    if (match === here) here = here.nextSibling;
    else old.insertBefore(match, here);
    likeThat(match, next);
  }
  while (here) here = leave(here, wanted);
}

// A row that no longer belongs there stays, greyed, if others follow it: nothing is pulled away from under a finger.
function leave(node, wanted) {
  const next = node.nextSibling;
  let later = next;
  while (later && !wanted.has(keyOf(later))) later = later.nextSibling;
  const stays = later && node.matches?.("[data-rows] tr") && all(".gone", node.parentNode).length < GONE_MAX;
  stays ? node.classList.add("gone") : node.remove();
  return next;
}

// -- live ---------------------------------------------------------------------------------------------------------------

const REST = 500, REST_TIMES = 3, AWAY = 5_000; // ms from one reading to the next, or times the last one; ms while nobody answers
const LIVE = { live: ["Live", "The page follows what happens: p holds it"], held: ["Held", "Updates are held: p lets them go on"],
  lost: ["Reconnecting", "The panel does not answer at the moment"] };
let source = null, held = false, busy = false, due = null, rest = REST, changedAt = performance.timeOrigin;

function showLive(state) {
  const button = one("#live");
  if (!button) return;
  button.dataset.state = state;
  button.setAttribute("aria-pressed", String(state !== "held"));
  [one("[data-live-word]", button).textContent, button.title] = LIVE[state];
}

// Somebody has to look: a hidden tab lets its connection go, and under an open dialog nothing moves.
function follow() {
  const url = document.body.dataset.liveUrl;
  if (!url) return;
  if (held) showLive("held");
  if (held || document.hidden || one("dialog[open]")) {
    source?.close();
    source = null;
  } else if (!source) {
    source = new EventSource(url);
    source.addEventListener("open", () => {
      showLive("live");
      change(); // what happened while nobody listened
    });
    source.addEventListener("error", () => showLive("lost"));
    source.addEventListener("change", change);
  }
}

const readSoon = (ms) => (due ??= setTimeout(read, Math.max(ms, rest)));

function change() {
  changedAt = Date.now();
  readSoon(0);
}

async function read() {
  due = null;
  if (busy || !source) return void (source && readSoon(0)); // or what changed since that reading began would be missed
  busy = true;
  const began = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    root.toggleAttribute("data-stale", !answer.ok);
    if (answer.ok) show(new DOMParser().parseFromString(await answer.text(), "text/html"), began);
    else if (answer.status === 401 || answer.status === 403) location.reload();
    else readSoon(AWAY);
  } catch {
    root.toggleAttribute("data-stale", true);
    readSoon(AWAY);
  } finally {
    busy = false;
    rest = Math.max(REST, REST_TIMES * (Date.now() - began));
  }
}

function show(fresh, began) {
  readClock(fresh);
  for (const node of all("[data-live][id]", fresh)) {
    const old = document.getElementById(keyOf(node));
    if (old) likeThat(old, node);
  }
  document.title = fresh.title;
  tick();
  all("form[data-pick]").forEach(showPicked);
  sayWhatChanged();
  askAgain(began);
}

// Numbers that were read before the last change: there will be newer ones soon.
function askAgain(began) {
  const counted = one("[data-again-s]")?.dataset;
  if (counted && (!counted.countedS || began - counted.countedS * 1000 < changedAt)) readSoon(counted.againS * 1000 + 50);
}

// -- rows ---------------------------------------------------------------------------------------------------------------

const boxesOf = (form) => all('input[name="id"]', form);
let lastBox = null;

function showPicked(form) {
  const boxes = boxesOf(form), picked = boxes.filter((box) => box.checked).length, every = one("[data-select-all]", form);
  if (every) [every.checked, every.indeterminate] = [picked > 0 && picked === boxes.length, picked > 0 && picked < boxes.length];
  form.dataset.selected = one('[name="all"]:checked', form) ? "all" : picked;
  all("[data-selected-number]", form).forEach((node) => (node.textContent = picked));
  all('[name="verb"]', form).forEach((button) => (button.disabled = form.dataset.selected === "0"));
}

document.addEventListener("click", (event) => {
  const box = event.target.closest?.('form[data-pick] input[name="id"]');
  if (!box) return;
  const boxes = boxesOf(box.form), [from, to] = [boxes.indexOf(lastBox), boxes.indexOf(box)].sort((a, b) => a - b);
  if (event.shiftKey && from >= 0) boxes.slice(from, to + 1).forEach((each) => (each.checked = box.checked));
  lastBox = box;
});
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-pick]");
  if (!form) return;
  if (event.target.matches("[data-select-all]")) boxesOf(form).forEach((box) => (box.checked = event.target.checked));
  showPicked(form);
});

function step(by) {
  const rows = all("[data-rows] [data-row]"), at = rows.indexOf(document.activeElement?.closest("[data-row]"));
  const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)];
  if (next) one("a", next)?.focus();
}

// -- buttons and keys ---------------------------------------------------------------------------------------------------

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch { // there is none over plain http
    const area = Object.assign(document.createElement("textarea"), { value: button.dataset.copy, className: "hidden" });
    button.after(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  one("span", button).textContent = "Copied";
  say("Copied");
  setTimeout(() => (one("span", button).textContent = "Copy"), 1_500);
}

function hold() {
  held = !held;
  if (!held) return location.reload(); // rows that had left go now
  say("Updates are held");
  follow();
}

const PRESSED = { live: hold, theme: nextTheme, help: () => one("#keys").showModal() };
const KEYS = {
  "?": PRESSED.help, t: nextTheme, p: () => one("#live") && hold(), j: () => step(1), k: () => step(-1),
  "/": () => one("[data-search]")?.select(),
  x: () => { const row = document.activeElement?.closest("[data-row]"); if (row) one('input[type="checkbox"]', row)?.click(); },
};
let goesUntil = 0; // after `g`

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button");
  if (button?.dataset.copy) copy(button);
  else PRESSED[button?.getAttribute("id")]?.();
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
  if (typing && event.key === "Escape") event.target.blur();
  if (typing || stored("onward-keys") === "off" || one("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const key = CSS.escape(event.key), goes = event.timeStamp < goesUntil && one(`[data-go="${key}"]`);
  goesUntil = event.key === "g" ? event.timeStamp + 1_500 : 0;
  const pressed = goes || all(`[data-key="${key}"]`).find((node) => node.checkVisibility());
  if (!pressed && !KEYS[event.key]) return;
  event.preventDefault();
  pressed ? pressed.click() : KEYS[event.key]();
});

// -- now ----------------------------------------------------------------------------------------------------------------

one("#keys-on").checked = stored("onward-keys") !== "off";
one("#keys-on").addEventListener("change", (event) => stored("onward-keys", event.target.checked ? "on" : "off"));
const url = new URL(location);
url.searchParams.delete("done"); // said once
history.replaceState(history.state, "", url);
readClock(document);
tick(setInterval(tick, 1_000));
all("form[data-pick]").forEach(showPicked);
document.addEventListener("visibilitychange", follow);
new MutationObserver(follow).observe(document.body, { subtree: true, attributeFilter: ["open"] });
addEventListener("pagehide", () => source?.close());
follow();
one("form[data-submit-now], form[data-submit]")?.requestSubmit();
