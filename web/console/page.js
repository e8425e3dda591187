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

/** Show a problem to people. */
export function trouble(problem) {
  return h("p", { class: "trouble", role: "alert" }, problem.message);
}

const notice = document.getElementById("notice");

/** Say something, also to those who do not see the page. */
export function say(text = "") {
  if (notice.textContent !== text) {
    notice.textContent = text;
  }
}

/**
 * Do something now, and again some seconds after it was done, until the signal says stop. While the page is not to be
 * seen, nothing is asked; what fails is said, and tried again.
 */
export async function repeatedly(seconds, signal, act) {
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        await act();
        say();
      } catch (problem) {
        if (signal.aborted || problem.name === "AbortError") {
          return;
        }
        if (problem.status === undefined) {
          throw problem;
        }
        say(`Not up to date: ${problem.message}`);
      }
    }
    await pause(seconds * 1000, signal);
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
