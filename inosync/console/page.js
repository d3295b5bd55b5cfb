(() => {
"use strict";
const EVERY = 5000, one = (s, d = document) => d.querySelector(s),
  all = (s, d = document) => [...d.querySelectorAll(s)];
const tools = one("#tools"), filter = document.createElement("input"), count = document.createElement("span"),
  said = document.createElement("span");
let column = -1, down = true, busy = false;
filter.type = "search"; filter.placeholder = "Filter: name, state or reason"; filter.spellcheck = false;
filter.setAttribute("aria-label", "Show only nodes whose row has this text");
said.setAttribute("role", "status");
tools.append(filter, count, said);
const value = row => {
  const cell = row.cells[column], v = cell.dataset.v ?? cell.textContent;
  return v !== "" && !isNaN(v) ? Number(v) : v;
};
const arrange = () => {
  const body = one("tbody"), word = filter.value.trim().toLowerCase(), rows = all("tr", body);
  let shown = 0;
  for (const row of rows) {
    row.hidden = !row.textContent.toLowerCase().includes(word);
    shown += !row.hidden;
  }
  count.textContent = word ? `${shown} of ${rows.length} nodes` : "";
  rows.sort((a, b) => {
    if (column < 0) return a.dataset.n - b.dataset.n;
    const x = value(a), y = value(b), c = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0)
      : typeof x === "number" ? 1 : -1;
    return (down ? -c : c) || a.dataset.n - b.dataset.n;
  });
  if (rows.some((row, n) => body.rows[n] !== row)) body.append(...rows);
  all("thead th").forEach((th, n) => {
    if (n === column) th.setAttribute("aria-sort", down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  });
};
all("thead th").forEach((th, n) => {
  const button = document.createElement("button");
  button.type = "button"; button.append(...th.childNodes); button.title = "Sort; a third time: worst first";
  button.addEventListener("click", () => {
    if (column !== n) { column = n; down = th.classList.contains("n"); }
    else if (down === th.classList.contains("n")) down = !down;
    else { column = -1; }
    arrange();
  });
  th.append(button);
});
filter.addEventListener("input", arrange);
const tell = (text, late) => { said.textContent = text; said.className = late ? "late" : ""; };
const update = async () => {
  if (busy || document.hidden) return;
  if (!getSelection().isCollapsed) { tell("not updated while text is selected", false); return; }
  busy = true;
  try {
    const got = await fetch("/", {cache: "no-store", signal: AbortSignal.timeout(EVERY * 2)});
    const page = new DOMParser().parseFromString(await got.text(), "text/html"), live = one("#live", page);
    if (!live) throw new Error("no page");
    one("#live").replaceChildren(...live.childNodes);
    document.title = page.title;
    if (live.dataset.up === "1") {
      const focus = document.activeElement?.closest("tr")?.id;
      one("tbody").replaceChildren(...one("tbody", page).childNodes);
      if (focus) document.getElementById(focus)?.focus();
      one("footer").replaceChildren(...one("footer", page).childNodes);
    }
    one("main").classList.toggle("stale", live.dataset.up !== "1");
    tell("updated every 5 s", false);
    arrange();
  } catch {
    one("main").classList.add("stale");
    tell("no answer: this page is not up to date", true);
  } finally { busy = false; }
};
tell("updated every 5 s", false);
setInterval(update, EVERY);
document.addEventListener("visibilitychange", update);
})();
