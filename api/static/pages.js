// Live updates. Pages are made on the server; when something has changed, the page is fetched again and the parts of it
// that have an id and differ take the place of the old ones. Without this script a page shows what a reload would.
// Long tables can be sorted and searched here, too.
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
    if (!old || (sent.get(old) || old.outerHTML) === fresh.outerHTML || old.contains(document.activeElement)) continue;
    keepOpen(old, fresh);
    arrange(fresh);
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

// Sections with such tables, as the server sent them.
const sent = new WeakMap();

function arrange(section) {
  const tables = section.querySelectorAll("table[data-searchable]");
  if (tables.length) sent.set(section, section.outerHTML);
  tables.forEach(searchable);
}

function searchable(table) {
  const rows = [...table.tBodies[0].rows], heads = [...table.tHead.rows[0].cells];
  const box = document.createElement("p"), label = document.createElement("label");
  const input = document.createElement("input"), count = document.createElement("span");
  box.className = "search";
  input.type = "search";
  count.setAttribute("role", "status");
  label.append("Search these rows ", input);
  box.append(label, count);
  table.parentElement.before(box);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    count.textContent = words.length ? `${rows.filter(row => !row.hidden).length} of ${rows.length} rows` : "";
  });
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = rows.some(row => "value" in row.cells[column].dataset) ? "descending" : "ascending";
      const falling = (head.getAttribute("aria-sort") === first) !== (first === "descending");
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      rows.sort((a, b) => compare(a.cells[column], b.cells[column], falling ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}

// Figures by their size, texts by the alphabet; what is unknown comes last either way.
function compare(a, b, sign) {
  const [x, y] = [a, b].map(cell => "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent);
  const known = value => value !== "–" && value !== "";
  if (known(x) !== known(y)) return known(x) ? -1 : 1;
  return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
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
  document.querySelectorAll("main > [id]").forEach(arrange);
  start();
});
