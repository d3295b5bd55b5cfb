"""How the page looks, and what its script does. Both are constant: the page's policy has their hashes."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59636e;--line:#d1d9e0;--head:#f3f5f7;
--link:#0b57a4;
--red:#b3141f;--redbg:#ffe5e5;--amber:#7a4b00;--amberbg:#fff1cf;--green:#14682f;--greenbg:#e0f5e5;
--blue:#0b57a4;--bluebg:#e1efff;--purple:#6a35b0;--purplebg:#f0e6ff;--grey:#4d5661;--greybg:#e9ecef}
@media (prefers-color-scheme:dark){:root{--bg:#0f1318;--fg:#e4e9ee;--dim:#9aa5b1;--line:#2c343d;
--head:#171d24;
--link:#7ab8ff;--red:#ff9a93;--redbg:#4a1619;--amber:#ffcf70;--amberbg:#402d05;--green:#7fdc97;
--greenbg:#12351d;
--blue:#8cc4ff;--bluebg:#10304f;--purple:#cfaeff;--purplebg:#33214f;--grey:#b6c0ca;--greybg:#2a313a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:14px/1.4 system-ui,"DejaVu Sans",sans-serif}
header,main,footer{padding:0 16px}
h1{font-size:16px;margin:12px 0 0;font-weight:600}
h1 small{font-weight:400;color:var(--dim);font-size:13px;margin-left:8px}
a{color:var(--link)}
.verdict{font-size:22px;font-weight:600;margin:4px 0 8px;line-height:1.25;overflow-wrap:anywhere}
.verdict.good{color:var(--green)}.verdict.soso{color:var(--amber)}.verdict.bad{color:var(--red)}
ul{list-style:none;margin:0 0 8px;padding:0}
.chips{display:flex;flex-wrap:wrap;gap:6px}
.badge{display:inline-block;padding:1px 8px;border-radius:4px;font-weight:600;white-space:nowrap;
font-size:13px;
color:var(--grey);background:var(--greybg)}
.halted .badge,.retrying .badge,.badge.halted,.badge.retrying{color:var(--red);background:var(--redbg)}
.lagging .badge,.badge.lagging{color:var(--amber);background:var(--amberbg)}
.degraded .badge,.badge.degraded{color:var(--purple);background:var(--purplebg)}
.full .badge,.syncing .badge,.badge.full,.badge.syncing{color:var(--blue);background:var(--bluebg)}
.ok .badge,.badge.ok{color:var(--green);background:var(--greenbg)}
.worries li{border-left:4px solid var(--red);background:var(--redbg);color:var(--fg);padding:6px 10px;
margin-bottom:4px;overflow-wrap:anywhere}
.facts{display:flex;flex-wrap:wrap;gap:2px 18px;margin:0 0 8px;color:var(--dim);font-size:13px}
.facts div{display:flex;gap:5px}.facts dt::after{content:":"}.facts dd{margin:0;color:var(--fg)}
#tools{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center;margin:0 0 8px;color:var(--dim);
font-size:13px}
#tools:empty{display:none}
#tools input{font:inherit;color:var(--fg);background:var(--bg);border:1px solid var(--dim);border-radius:4px;
padding:3px 8px;width:220px}
#tools .late{color:var(--red);font-weight:600}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--dim);font-size:13px;padding:0 0 4px}
th,td{text-align:left;padding:3px 10px 3px 0;border-bottom:1px solid var(--line);vertical-align:middle}
th:first-child,td:first-child{padding-left:8px}
thead th{position:sticky;top:0;background:var(--head);font-size:12px;font-weight:600;color:var(--dim);
white-space:nowrap;z-index:1}
thead button{all:unset;cursor:pointer}
thead button:focus-visible,#tools input:focus-visible,a:focus-visible{outline:2px solid var(--link);
outline-offset:2px}
th[aria-sort=ascending] button::after{content:" \\25b2"}
th[aria-sort=descending] button::after{content:" \\25bc"}
tbody th{font-weight:600;overflow-wrap:break-word}
tbody th.long{overflow-wrap:anywhere;min-width:18em;max-width:26em}
tbody tr:hover{background:var(--head)}
tr.halted td:first-child,tr.retrying td:first-child{box-shadow:inset 4px 0 var(--red)}
tr.lagging td:first-child{box-shadow:inset 4px 0 var(--amber)}
tr.degraded td:first-child{box-shadow:inset 4px 0 var(--purple)}
.n{text-align:right;white-space:nowrap}
.lag{font-weight:600}
.ok .lag,.zero{color:var(--dim);font-weight:400}
.why{width:34%;min-width:16em;max-width:44em;overflow-wrap:anywhere}
.w{white-space:nowrap}
svg{display:inline-block;vertical-align:middle;width:120px;height:22px;fill:var(--blue);fill-opacity:.18;
stroke:var(--blue);stroke-width:1}
.ok svg{fill:var(--green);stroke:var(--green)}
.lagging svg{fill:var(--amber);stroke:var(--amber)}
.retrying svg,.halted svg{fill:var(--red);stroke:var(--red)}
.peak{color:var(--dim);font-size:12px;margin-left:6px}
footer{color:var(--dim);font-size:13px;margin:10px 0 24px}
.stale{opacity:.45}
.off{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media (max-width:1560px){.wider{display:none}}
@media (max-width:1280px){.wide{display:none}}
@media (max-width:760px){
header,main,footer{padding:0 10px}
.verdict{font-size:19px}
table,tbody,caption{display:block}
thead{display:none}
tbody tr{display:grid;grid-template-columns:auto 1fr auto;gap:2px 8px;align-items:center;
border-bottom:1px solid var(--line);padding:6px 0 6px 8px}
tbody th,tbody td{display:block;border:0;padding:0;min-width:0;max-width:none}
tbody td:first-child{padding:0}
tr.halted td:first-child,tr.retrying td:first-child,tr.lagging td:first-child,tr.degraded td:first-child
{box-shadow:none}
tr.halted,tr.retrying{box-shadow:inset 4px 0 var(--red)}tr.lagging{box-shadow:inset 4px 0 var(--amber)}
tr.degraded{box-shadow:inset 4px 0 var(--purple)}
tbody .why,tbody .hour{grid-column:1/-1}
tbody .hour,tbody .wait,tbody .last,tbody .next{order:1}
tbody .hour svg{width:calc(100% - 80px)}
tbody .wait,tbody .last,tbody .next{font-size:13px;color:var(--dim);text-align:left}
tbody .wait::before{content:"waiting "}tbody .last::before{content:"last "}
tbody .next::before{content:"next "}
tbody td:empty,.ok .wait,.ok .last{display:none}
}
"""

SCRIPT = """
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
"""
