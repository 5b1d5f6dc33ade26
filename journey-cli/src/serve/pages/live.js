"use strict";
// The page works without this script; with it, it follows what arrives and can be driven by keys alone.
const state = document.getElementById("state");
const pause = document.getElementById("pause");
const filters = document.getElementById("filters");
let paused = false;
let missed = false;
let loading = false;
let wait = 0;

async function refresh() {
  if (loading) {
    missed = true;
    return;
  }
  loading = true;
  missed = false;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      replace(part, fresh.getElementById(part.id));
    }
    for (const link of document.querySelectorAll("nav a")) {
      const twin = fresh.querySelector(`nav a[href="${link.getAttribute("href")}"]`);
      if (twin) link.textContent = twin.textContent;
    }
    state.textContent = "live";
  } catch {
    state.textContent = "connection lost";
  } finally {
    loading = false;
    if (missed && !paused) refresh();
  }
}

// Whoever is typing, or has moved to a row, stays there.
function replace(part, fresh) {
  if (!fresh) return;
  const form = part.querySelector("#filters");
  const twin = fresh.querySelector("#filters");
  const focused = document.activeElement && document.activeElement.id;
  const inside = part.contains(document.activeElement);
  const scrolled = Array.from(part.querySelectorAll(".scroll"), (box) => box.scrollLeft);
  if (form && twin && form.contains(document.activeElement)) {
    // The form itself is kept in place: moving it would end an edit.
    while (form.previousSibling) form.previousSibling.remove();
    while (form.nextSibling) form.nextSibling.remove();
    const nodes = Array.from(fresh.childNodes);
    const at = nodes.indexOf(twin);
    form.before(...nodes.slice(0, at));
    form.after(...nodes.slice(at + 1));
  } else {
    part.replaceChildren(...fresh.childNodes);
    if (inside && focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
  part.querySelectorAll(".scroll").forEach((box, index) => (box.scrollLeft = scrolled[index] ?? 0));
}

function setPaused(value) {
  paused = value;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "resume" : "pause";
  state.textContent = paused ? "paused" : "live";
  if (!paused && missed) refresh();
}

const source = new EventSource("/live");
source.addEventListener("open", () => {
  state.textContent = paused ? "paused" : "live";
  pause.hidden = false;
});
source.addEventListener("error", () => (state.textContent = "connection lost"));
source.addEventListener("change", () => {
  if (paused || document.hidden) missed = true;
  else refresh();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && missed && !paused) refresh();
});
pause.addEventListener("click", () => setPaused(!paused));
window.addEventListener("pagehide", () => source.close());

// Filters apply while they are edited, without losing the place.
function apply() {
  const form = document.getElementById("filters");
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.set(name, value);
  history.replaceState(null, "", form.getAttribute("action") + (query.size ? "?" + query : ""));
  refresh();
}
if (filters) {
  document.addEventListener("input", (event) => {
    if (!event.target.closest("#filters")) return;
    clearTimeout(wait);
    wait = setTimeout(apply, 200);
  });
}

function move(step) {
  const links = Array.from(document.querySelectorAll("table.journeys tbody a"));
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step));
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (location.pathname !== "/") history.length > 1 ? history.back() : (location.href = "/");
    return;
  }
  if (typing) return;
  if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "p") setPaused(!paused);
  else if (event.key === "/") {
    const first = document.getElementById("q");
    if (!first) return;
    event.preventDefault();
    first.focus();
    first.select();
  }
});
