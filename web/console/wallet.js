// A wallet: what it is, what happened to it, its transactions and its entries in the ledger; freezing it.

import { get, newKey, post } from "./session.js";
import { amount, facts, h, pages, panel, pause, say, short, status, table, transactionLink, trouble, walletLink, when, written, writtenBlock } from "./page.js";
import { transactionsTable } from "./overview.js";

const LOOKS = 20;
const LOOK_EVERY_MS = 150;

export function walletPage(wallet, signal) {
  const path = `/wallets/${wallet.id}`;
  const head = h("div");
  const events = pages((cursor) => get(`${path}/events`, { limit: 20, cursor }, signal), (items) => eventsTable(items, wallet.currency));
  const transactions = pages((cursor) => get("/transactions", { wallet_id: wallet.id, limit: 20, cursor }, signal), (items) => transactionsTable(items));
  const entries = pages((cursor) => get("/ledger", { wallet_id: wallet.id, limit: 20, cursor }, signal), entriesTable);

  const show = (current) => {
    const change = current.status !== "closed" && changeOf(current);
    head.replaceChildren(
      facts([
        ["Balance", amount(current.balance, current.currency)],
        ["Status", status(current.status)],
        ["Overdraft limit", amount(current.overdraft_limit, current.currency)],
        ["Version", String(current.version)],
        ["Owner", h("span", { class: "id" }, current.owner_id)],
        ["Opened", when(current.created_at)],
        ["Last changed", when(current.updated_at)],
      ]),
      ...[writtenBlock(Object.entries(current.metadata))].filter(Boolean),
      ...(change
        ? [h("button", { type: "button", class: change.isGrave && "grave", onclick: () => confirm(current, change, changed) }, `${change.title}…`)]
        : []),
    );
  };
  const changed = async (current) => {
    show(current);
    head.querySelector("button")?.focus();
    say(`The wallet is ${current.status}.`);
    await projected(events, current.version, signal);
  };
  show(wallet);
  for (const list of [events, transactions, entries]) {
    list.again().catch((problem) => problem.name === "AbortError" || list.box.replaceChildren(trouble(problem)));
  }
  return [
    h("h1", {}, "Wallet ", h("span", { class: "id" }, wallet.id)),
    h("section", { class: "panel" }, head),
    panel("History", events.box),
    panel("Transactions", transactions.box),
    panel("Ledger entries", entries.box),
  ];
}

/** Return a table of the ledger's entries. */
export function entriesTable(entries) {
  return table(
    [
      ["When", (each) => when(each.occurred_at)],
      ["Effective", (each) => each.effective_at && when(each.effective_at)],
      ["Transaction", (each) => transactionLink(each.transaction_id, short(each.transaction_id))],
      ["Account", (each) => (each.account.startsWith("external:") ? each.account : walletLink(each.account, short(each.account)))],
      ["#Debit", (each) => each.direction === "debit" && amount(each.amount, each.currency)],
      ["#Credit", (each) => each.direction === "credit" && amount(each.amount, each.currency)],
      ["#Balance after", (each) => each.balance_after !== null && amount(each.balance_after, each.currency)],
      ["Hash", (each) => h("code", { title: each.hash }, each.hash.slice(0, 12))],
    ],
    entries,
    { caption: "Entries of the ledger", empty: "There are none." },
  );
}

function eventsTable(events, currency) {
  return table(
    [
      ["#Version", (each) => String(each.version)],
      ["When", (each) => when(each.occurred_at)],
      ["What", (each) => each.kind ?? each.type.replace("wallet.", "").replaceAll("_", " ")],
      ["Transaction", (each) => each.kind && transactionLink(each.command_id, short(each.command_id))],
      ["#Change", (each) => each.kind && amount(each.change, currency)],
      ["#Balance", (each) => amount(each.balance, currency)],
      ["Status", (each) => status(each.status)],
      ["With", (each) => each.counterparty_id && walletLink(each.counterparty_id, short(each.counterparty_id))],
      ["#Limit", (each) => each.overdraft_limit !== null && amount(each.overdraft_limit, currency)],
      ["Reason, as written", (each) => each.reason && written(each.reason)],
    ],
    events,
    { caption: "What happened to the wallet, the newest first" },
  );
}

// Lists come from PostgreSQL, a moment behind the wallet.
async function projected(events, version, signal) {
  for (let look = 0; look < LOOKS && !signal.aborted; look += 1) {
    const items = await events.again();
    if (items[0]?.version >= version) {
      return;
    }
    await pause(LOOK_EVERY_MS, signal);
  }
}

function changeOf(wallet) {
  return wallet.status === "frozen"
    ? { action: "unfreeze", title: "Unfreeze", effect: "Money will move in and out of it again.", isGrave: false }
    : { action: "freeze", title: "Freeze", effect: "No money will move in or out of it until it is unfrozen.", isGrave: true };
}

/** Ask for a reason, and do it. Sent again after an error, it is the same request: it counts once. */
function confirm(wallet, { action, title, effect, isGrave }, done) {
  const key = newKey();
  const reason = h("input", { id: "reason", required: true, maxlength: 255, autocomplete: "off", autofocus: true });
  const fault = h("div");
  const act = h("button", { class: isGrave && "grave" }, title);
  const dialog = h(
    "dialog",
    { "aria-labelledby": "asked", onclose: () => dialog.remove() },
    h("h2", { id: "asked" }, `${title} this wallet?`),
    h("p", {}, h("span", { class: "id" }, wallet.id)),
    h("p", {}, effect),
    h(
      "form",
      {
        onsubmit: async (event) => {
          event.preventDefault();
          act.disabled = true;
          try {
            const current = await post(`/wallets/${wallet.id}/${action}`, { reason: reason.value.trim() }, key);
            dialog.close();
            await done(current);
          } catch (problem) {
            if (!dialog.open) {
              say(`The list of what happened is not up to date: ${problem.message}`);
              return;
            }
            fault.replaceChildren(trouble(problem));
            act.disabled = false;
          }
        },
      },
      h("label", { for: "reason" }, "Reason, for the wallet's history"),
      reason,
      fault,
      h("p", { class: "choice" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), act),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}
