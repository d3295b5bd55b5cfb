(() => {
"use strict";
const EVERY = 5000, one = (s, d = document) => d.querySelector(s),
  all = (s, d = document) => [...d.querySelectorAll(s)];
const tools = one("#tools"), filter = document.createElement("input"), count = document.createElement("span"),
  said = document.createElement("span"), opened = new Map();
let column = -1, down = true, busy = false, answered = Date.now();
filter.type = "search"; filter.placeholder = "Filter: name, state or reason"; filter.spellcheck = false;
filter.setAttribute("aria-label", "Show only nodes whose line has this text");
said.setAttribute("role", "status");
tools.append(filter, count, said);
const line = node => one("summary .row", node);
const value = node => {
  const cell = line(node).children[column], v = cell.dataset.v ?? cell.textContent;
  return v !== "" && !isNaN(v) ? Number(v) : v;
};
const compare = (a, b) => {
  const x = value(a), y = value(b), c = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0)
    : typeof x === "number" ? 1 : -1;
  return (down ? -c : c) || a.dataset.n - b.dataset.n;
};
// While the list is sorted or filtered, there are no groups.
const arrange = fresh => {
  const list = one("#nodes"), word = filter.value.trim().toLowerCase(), flat = column >= 0 || word !== "";
  if (!flat && !fresh) { list.replaceChildren(...whole.map(child => child.cloneNode(true))); prepare(); }
  const nodes = all(".node", list);
  if (flat) {
    nodes.sort(column < 0 ? (a, b) => a.dataset.n - b.dataset.n : compare);
    all(".group", list).forEach(group => group.remove());
    list.append(...nodes);
  }
  let shown = 0;
  for (const node of nodes) {
    node.hidden = !line(node).textContent.toLowerCase().includes(word);
    shown += !node.hidden;
  }
  count.textContent = word ? `${shown} of ${nodes.length} nodes` : "";
  all(".head > span", list).forEach((head, n) => {
    one("button", head).title = n === column ? (down ? "Greatest first" : "Smallest first") : "Sort";
    one("button", head).setAttribute("aria-pressed", String(n === column));
    if (n === column) head.dataset.order = down ? "down" : "up"; else delete head.dataset.order;
  });
};
const sort = (n, falls) => {
  if (column !== n) { column = n; down = falls; }
  else if (down === falls) down = !down;
  else { column = -1; }
  arrange(false);
};
const copy = async button => {
  const code = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {  // not allowed at a public address without TLS: what is selected can be copied by hand
    getSelection().selectAllChildren(code);
  }
};
const prepare = () => {
  all("#nodes details").forEach(found => {
    const key = found.className.split(" ")[0] + found.dataset.key;
    if (opened.has(key)) found.open = opened.get(key);
    found.firstElementChild.addEventListener("click", () => opened.set(key, !found.open));
  });
  all("#nodes .head > span").forEach((head, n) => {
    const button = document.createElement("button"), falls = ["lag", "hour", "wait"].includes(head.className);
    button.type = "button"; button.append(...head.childNodes);
    button.addEventListener("click", () => sort(n, falls));
    head.append(button);
  });
  all("#nodes dd code").forEach(code => {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = "copy";
    button.addEventListener("click", () => copy(button));
    code.after(button);
  });
};
let whole = [];
const keep = () => { whole = [...one("#nodes").childNodes].map(child => child.cloneNode(true)); };
filter.addEventListener("input", () => arrange(false));
const tell = (text, late) => { said.textContent = text; said.className = late ? "late" : ""; };
const place = () => {
  const focus = document.activeElement?.closest("#nodes details");
  return focus ? [focus.className, focus.dataset.key] : null;
};
const update = async () => {
  if (busy || document.hidden) return;
  if (!getSelection().isCollapsed) { tell("not updated while text is selected", false); return; }
  busy = true;
  try {
    const got = await fetch("/", {cache: "no-store", signal: AbortSignal.timeout(EVERY * 2)});
    const page = new DOMParser().parseFromString(await got.text(), "text/html"), live = one("#live", page);
    if (!live) throw new Error("no page");
    const focus = place();
    for (const part of ["#live", "#nodes", "footer"]) {
      one(part).replaceChildren(...one(part, page).childNodes);
      one(part).className = one(part, page).className;
    }
    document.title = page.title;
    keep(); prepare(); arrange(true);
    if (focus) all("#nodes details")
      .find(found => found.className === focus[0] && found.dataset.key === focus[1])?.firstElementChild.focus();
    answered = Date.now();
    tell("updated every 5 s", false);
  } catch {
    one("#nodes").classList.add("stale");
    tell(`no answer: what is shown is ${Math.round((Date.now() - answered) / 1000)} s old`, true);
  } finally { busy = false; }
};
keep(); prepare(); arrange(true);
tell("updated every 5 s", false);
setInterval(update, EVERY);
document.addEventListener("visibilitychange", update);
})();
