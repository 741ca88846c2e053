// Live updates. Pages are made on the server; when something has changed, the page is fetched again and the parts of it
// that have an id and differ take the place of the old ones. Without this script a page shows what a reload would.
"use strict";

const PAUSE = 1500;
let busy = false, again = false, last = 0;

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  const wait = Math.max(0, last + PAUSE - Date.now());
  if (wait) await new Promise(done => setTimeout(done, wait));
  last = Date.now();
  try {
    const answer = await fetch(location.href, {headers: {Accept: "text/html"}, credentials: "same-origin"});
    if (answer.redirected) { location.reload(); return; }
    if (answer.ok) swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch (error) {
    // The server is away; the next event or tick tries again.
  } finally {
    busy = false;
    if (again) { again = false; refresh(); }
  }
}

function swap(page) {
  const live = page.querySelector("[data-live]") !== null;
  for (const fresh of page.querySelectorAll("main > [id]")) {
    const old = document.getElementById(fresh.id);
    if (!old || old.outerHTML === fresh.outerHTML || old.contains(document.activeElement)) continue;
    keepOpen(old, fresh);
    const log = old.querySelector("pre.log");
    const atEnd = log && log.scrollTop + log.clientHeight >= log.scrollHeight - 4, top = log ? log.scrollTop : 0;
    old.replaceWith(document.adoptNode(fresh));
    const shown = fresh.querySelector("pre.log");
    if (shown) shown.scrollTop = atEnd || !log ? shown.scrollHeight : top;
  }
  document.title = page.title;
  if (!live) stop();
}

function keepOpen(old, fresh) {
  const before = [...old.querySelectorAll("details")];
  [...fresh.querySelectorAll("details")].forEach((one, i) => { if (before[i]) one.open = before[i].open; });
}

let stream = null, timer = 0;

function stop() {
  if (stream) stream.close();
  clearInterval(timer);
  stream = null;
}

function start() {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  if (live.dataset.events) {
    const types = ["state", "attempt", "progress", "metrics", "log", "checkpoint"];
    stream = new EventSource(live.dataset.events + "?after=" + (live.dataset.after || 0));
    for (const type of types) stream.addEventListener(type, refresh);
  } else {
    timer = setInterval(() => { if (!document.hidden) refresh(); }, 1000 * Number(live.dataset.live));
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const here = document.querySelector("nav [aria-current]");
  if (here) here.parentElement.scrollLeft = here.offsetLeft - 60;
  start();
});
