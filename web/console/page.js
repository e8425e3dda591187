// What all views share: making elements, times, tables, and asking again and again.

import { money } from "./money.js";

/** Make an element: h("a", { href: "#/", class: "x", onclick: f }, "text", child, …). */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Make an element of an SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return a moment as text: the time alone where it is of today. */
export function when(time) {
  if (!time) {
    return h("span", { class: "faint" }, "not yet");
  }
  const moment = new Date(time);
  const isToday = moment.toDateString() === new Date().toDateString();
  const clock = moment.toLocaleTimeString("en-GB");
  const text = isToday ? clock : `${moment.toLocaleDateString("en-CA")} ${clock}`;
  return h("time", { datetime: time, title: time }, text);
}

/** Return a link to a wallet, a transaction, or what is at an account of the ledger. */
export const walletLink = (id, text = id) => idLink("wallets", id, text);
export const transactionLink = (id, text = id) => idLink("transactions", id, text);
export const short = (id) => id.slice(0, 8);

function idLink(kind, id, text) {
  if (!id) {
    return h("span", { class: "faint" }, "outside");
  }
  return h("a", { href: `#/${kind}/${encodeURIComponent(id)}`, class: "id", title: id }, text);
}

export function status(value) {
  return h("span", { class: `status ${value}` }, value);
}

export function amount(value, currency) {
  return h("span", { class: "amount" }, money(value, currency));
}

/** Return a table. `columns` are pairs of a heading and what makes a cell of an item; "#Heading" is aligned right. */
export function table(columns, items, { caption, empty = "Nothing.", rowClass = () => null } = {}) {
  const heads = columns.map(([name]) => h("th", { scope: "col", class: name.startsWith("#") && "right" }, name.replace("#", "")));
  const rows = items.map((item) =>
    h("tr", { class: rowClass(item) }, columns.map(([name, cell]) => h("td", { class: name.startsWith("#") && "right" }, cell(item)))),
  );
  const body = rows.length ? rows : [h("tr", {}, h("td", { colspan: columns.length, class: "faint" }, empty))];
  return h("table", {}, caption && h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, body));
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function panel(title, ...content) {
  const id = `panel-${title.toLowerCase().replace(/\W+/g, "-")}`;
  return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, title), content);
}

/** Show a problem to people. What the server says may quote what users wrote. */
export function trouble(problem) {
  return h("p", { class: "trouble", role: "alert" }, written(problem.message));
}

// What users wrote. It never stands among Mercuria's own facts without a mark, and cannot look like one of them.

const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const NAMES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
const SHOWN_CHARACTERS = 200;

/** Return a text that a user wrote: on its own in its direction, what is not to be seen made visible, cut where long. */
export function written(text) {
  const characters = Array.from(String(text));
  const box = h("bdi", { class: "written" });
  const cut = characters.slice(0, SHOWN_CHARACTERS).join("");
  box.append(...visible(cut));
  if (characters.length > SHOWN_CHARACTERS) {
    const all = h(
      "button",
      { type: "button", onclick: () => box.replaceChildren(...visible(characters.join(""))) },
      `… show all ${characters.length} characters`,
    );
    box.append(" ", all);
  }
  return box;
}

function visible(text) {
  const parts = [];
  let end = 0;
  for (const { 0: sign, index } of text.matchAll(UNSEEN)) {
    const code = sign.codePointAt(0).toString(16).padStart(4, "0");
    parts.push(text.slice(end, index), h("span", { class: "sign", title: `U+${code.toUpperCase()}` }, NAMES[sign] ?? `\\u{${code}}`));
    end = index + sign.length;
  }
  return [...parts, text.slice(end)];
}

/** Return a block of what users wrote, apart from Mercuria's own facts; nothing where there is none. */
export function writtenBlock(pairs) {
  const given = pairs.filter(([, text]) => text !== null && text !== undefined);
  return (
    given.length > 0 &&
    h(
      "section",
      { class: "said", "aria-label": "Written by users" },
      h("h3", {}, "Written by users. Mercuria has not checked it."),
      h("dl", {}, given.map(([name, text]) => h("div", {}, h("dt", {}, written(name)), h("dd", {}, written(text))))),
    )
  );
}

const notice = document.getElementById("notice");
const said = new Map();

/** Say something, also to those who do not see the page. Each source says one thing at a time; "" is nothing. */
export function say(text = "", source = "page") {
  said.set(source, text);
  const all = [...new Set(said.values())].filter(Boolean).join(" ");
  if (notice.textContent !== all) {
    notice.textContent = all;
  }
}

/** Mark the page while a source cannot be asked: what is shown is as old as `since` says. */
function mark(source, problem, since) {
  const age = since ? `What is shown is of ${since.toLocaleTimeString("en-GB")}.` : "Nothing is shown yet.";
  say(problem ? `Not up to date: ${problem.message} ${age} It is tried again.` : "", source);
  problem ? stale.add(source) : stale.delete(source);
  document.body.classList.toggle("stale", stale.size > 0);
}

const stale = new Set();
let sources = 0;

/**
 * Do something now, and again some seconds after it was done, until the signal says stop. While the page is not to be
 * seen, nothing is asked. Whatever fails is said, what is shown is marked as old, and it is tried again.
 */
export async function repeatedly(seconds, signal, act) {
  const source = `source ${(sources += 1)}`;
  let since = null;
  signal.addEventListener("abort", () => mark(source, null), { once: true });
  while (!signal.aborted) {
    let wait = seconds;
    if (!document.hidden) {
      try {
        await act();
        since = new Date();
        mark(source, null);
      } catch (problem) {
        if (signal.aborted) {
          return;
        }
        mark(source, problem, since);
        wait = Math.max(seconds, problem.retryAfter ?? 0);
      }
    }
    await pause(wait * 1000, signal);
  }
}

/** Wait, at most until the signal says stop. */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

/** Return a list that begins with a page of it, and a button that brings the next one. */
export function pages(load, show) {
  const box = h("div", {}, h("p", { class: "faint" }, "…"));
  let items = [];
  const more = async (cursor) => {
    const page = await load(cursor);
    items = [...items, ...page.data];
    const button =
      page.has_more &&
      h("button", { type: "button", onclick: () => more(page.next_cursor).catch((problem) => box.append(trouble(problem))) }, "More");
    box.replaceChildren(show(items), ...(button ? [button] : []));
    return items;
  };
  const again = () => {
    items = [];
    return more();
  };
  return { box, again };
}
