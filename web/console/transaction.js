// A transaction: what it is, what became of it, and its two entries in the ledger.

import { get } from "./session.js";
import { amount, facts, h, panel, pause, status, trouble, walletLink, when, writtenBlock } from "./page.js";
import { entriesTable } from "./wallet.js";

const LOOKS = 20;
const LOOK_EVERY_MS = 250;

export function transactionPage(transaction, signal) {
  const head = h("div");
  const entries = h("div", {}, h("p", { class: "faint" }, "…"));
  const show = (current) =>
    head.replaceChildren(
      facts([
        ["Kind", current.kind],
        ["Status", status(current.status)],
        ["Amount", amount(current.amount, current.currency)],
        ["From", walletLink(current.from_wallet_id)],
        ["To", walletLink(current.to_wallet_id)],
        ["Began", when(current.created_at)],
        ["Completed", current.status === "failed" ? "never" : when(current.completed_at)],
        ...(current.effective_at ? [["Effective", when(current.effective_at)]] : []),
        ...(current.failure ? [["Reason", `${current.failure.detail} (${current.failure.code})`]] : []),
      ]),
      ...[writtenBlock([["reference", current.reference], ...Object.entries(current.metadata)])].filter(Boolean),
    );
  show(transaction);
  follow(transaction, show, entries, signal).catch((problem) => problem.name === "AbortError" || entries.replaceChildren(trouble(problem)));
  return [
    h("h1", {}, "Transaction ", h("span", { class: "id" }, transaction.id)),
    h("section", { class: "panel" }, head),
    panel("Ledger entries", entries),
  ];
}

// It may end, and be entered into the ledger, while it is looked at.
async function follow(transaction, show, box, signal) {
  let current = transaction;
  for (let look = 0; look < LOOKS && !signal.aborted; look += 1) {
    if (current.status === "pending") {
      current = await get(`/transactions/${transaction.id}`, {}, signal);
      show(current);
    }
    if (current.status === "failed") {
      box.replaceChildren(h("p", { class: "faint" }, "What has failed is not entered into the ledger."));
      return;
    }
    if (current.status === "completed") {
      const found = await entriesOf(transaction.id, signal);
      if (found.length) {
        box.replaceChildren(entriesTable(found));
        return;
      }
    }
    await pause(LOOK_EVERY_MS, signal);
  }
  box.replaceChildren(h("p", { class: "faint" }, "It is not in the ledger yet."));
}

async function entriesOf(id, signal) {
  try {
    return (await get(`/ledger/${id}`, {}, signal)).entries;
  } catch (problem) {
    if (problem.status === 404 || problem.code === "not_known_yet") {
      return [];
    }
    throw problem;
  }
}
