// The console: who is logged in, what is looked for, and which view is shown.
//
// The part of the address behind # is the view: #/ for all, #/wallets/{id}, #/transactions/{id}, #/find/{id}.

import { get, login, logout, NOT_AN_OPERATOR, onOver, Problem, resume } from "./session.js";
import { learn } from "./money.js";
import { h, pause, say, trouble, written } from "./page.js";
import { overview } from "./overview.js";
import { walletPage } from "./wallet.js";
import { transactionPage } from "./transaction.js";

const UUID = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;
const THEME = "mercuria.theme";

const main = document.getElementById("main");
const search = document.getElementById("search");
const searched = document.getElementById("searched");
const who = document.getElementById("who");
const leave = document.getElementById("logout");

let user = null;
let showing = new AbortController();

async function route() {
  showing.abort();
  showing = new AbortController();
  const { signal } = showing;
  say();
  if (!user) {
    show(loginForm());
    return;
  }
  try {
    const [, view, id] = location.hash.split("/").map(decodeURIComponent);
    const content = await views(view, id, signal);
    if (!signal.aborted) {
      show(content);
    }
  } catch (problem) {
    if (signal.aborted) {
      return;
    }
    const again = h("button", { type: "button", onclick: () => void route() }, "Try again");
    show([h("h1", {}, "Not shown"), trouble(problem), h("p", {}, again)]);
  }
}

async function views(view, id, signal) {
  document.title = UUID.test(id ?? "") ? `${id.slice(0, 8)} – Mercuria` : "Mercuria: console";
  if (!view) {
    return overview(signal);
  }
  if (!UUID.test(id ?? "")) {
    return [h("h1", {}, "Nothing found"), h("p", {}, "Wallets and transactions are found by their whole id, a UUID. "), h("p", { class: "id" }, written(id ?? ""))];
  }
  if (view === "wallets") {
    return walletPage(await get(`/wallets/${id}`, {}, signal), signal);
  }
  if (view === "transactions") {
    return transactionPage(await get(`/transactions/${id}`, {}, signal), signal);
  }
  return find(id, signal);
}

// An id does not say what it is of. A wallet's is known at once; that there is no such transaction may take a moment.
async function find(id, signal) {
  const wallet = await get(`/wallets/${id}`, {}, signal).catch(unlessMissing);
  if (wallet) {
    history.replaceState(null, "", `#/wallets/${wallet.id}`);
    return walletPage(wallet, signal);
  }
  const transaction = await get(`/transactions/${id}`, {}, signal).catch(unlessMissing);
  if (transaction) {
    history.replaceState(null, "", `#/transactions/${transaction.id}`);
    return transactionPage(transaction, signal);
  }
  return [h("h1", {}, "Nothing found"), h("p", {}, "There is no wallet and no transaction with this id: "), h("p", { class: "id" }, written(id ?? ""))];
}

function unlessMissing(problem) {
  if (problem.status !== 404) {
    throw problem;
  }
  return null;
}

function show(content) {
  main.replaceChildren(...[content].flat());
  main.dataset.view = location.hash.split("/")[1] || "overview";
  search.hidden = leave.hidden = !user;
  who.textContent = user?.email ?? "";
}

function loginForm(problem = null) {
  const email = h("input", { id: "email", type: "email", autocomplete: "username", required: true, autofocus: true });
  const password = h("input", { id: "password", type: "password", autocomplete: "current-password", required: true });
  const fault = h("div", {}, problem && trouble(problem));
  const button = h("button", {}, "Log in");
  const form = h(
    "form",
    {
      class: "panel login",
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        try {
          await begin(await login(email.value, password.value));
        } catch (problem) {
          fault.replaceChildren(trouble(problem));
          if (problem.code === NOT_AN_OPERATOR) {
            fault.append(h("p", {}, "Everybody else can use ", h("a", { href: "/docs" }, "the HTTP API"), "."));
          }
          password.value = "";
          email.focus();
        } finally {
          button.disabled = false;
        }
      },
    },
    h("h1", {}, "Log in as an operator"),
    h("label", { for: "email" }, "E-mail address"),
    email,
    h("label", { for: "password" }, "Password"),
    password,
    fault,
    button,
  );
  return form;
}

async function begin(found) {
  if (found) {
    learn((await get("/currencies")).data);
  }
  user = found;
  await route();
}

search.addEventListener("submit", (event) => {
  event.preventDefault();
  const id = searched.value.trim();
  if (id) {
    searched.value = "";
    location.hash = `#/find/${encodeURIComponent(id)}`;
    main.focus();
  }
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, textarea, dialog");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey && user) {
    event.preventDefault();
    searched.focus();
  }
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
leave.addEventListener("click", async () => {
  user = null;
  const ended = logout();
  location.hash = "#/";
  await route();
  await ended.catch((problem) => say(problem.message));
});
onOver((problem) => {
  user = null;
  showing.abort();
  show(loginForm(problem));
});
window.addEventListener("hashchange", route);

const root = document.documentElement;
root.dataset.theme = localStorage.getItem(THEME) ?? "";
document.getElementById("theme").addEventListener("click", () => {
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem(THEME, root.dataset.theme);
});

// Whatever fails without being caught elsewhere is said, and does not leave a page that only seems to live.
window.addEventListener("unhandledrejection", ({ reason }) => reason?.name === "AbortError" || say(`Something failed: ${reason?.message ?? reason}`));
window.addEventListener("error", ({ message }) => say(`Something failed: ${message}`));

// While Mercuria does not answer, a session is neither over nor there.
async function start() {
  for (;;) {
    try {
      return await begin(await resume());
    } catch (problem) {
      if (!(problem instanceof Problem && problem.passes)) {
        return show(loginForm(problem));
      }
      main.replaceChildren(h("h1", {}, "Not shown"), trouble(problem), h("p", { class: "faint" }, "It is tried again every few seconds."));
      await pause(1000 * Math.max(2, problem.retryAfter));
    }
  }
}

await start();
