// What goes on: money in motion, what is refused, how far behind stages are.

import { get } from "./session.js";
import { inUnits, money } from "./money.js";
import { amount, facts, h, panel, repeatedly, short, status, table, transactionLink, walletLink, when } from "./page.js";
import { bars, ranking } from "./plots.js";

const RANGES = { "1 hour": { minutes: 60, step: 1 }, "6 hours": { minutes: 360, step: 5 }, "24 hours": { minutes: 1440, step: 15 } };
const KINDS = ["deposit", "withdrawal", "transfer"];
const SHOWN = 25;
const BEHIND = 1000;
const number = (value) => value.toLocaleString("en-GB");

export function overview(signal) {
  const now = h("div", { class: "tiles" });
  const inFlight = h("div");
  const lag = h("div", { class: "wide" });
  const live = h("div", { class: "wide" });
  const plots = h("div", { class: "plots" });
  const reasons = h("div");
  const state = { rate: null, flight: null, lag: null, ready: null };

  const tiles = () => {
    now.replaceChildren(
      facts([
        ["Transactions in the last full minute", state.rate === null ? "…" : number(state.rate)],
        ["In flight", state.flight === null ? "…" : number(state.flight)],
        ["Records behind, all stages", state.lag === null ? "…" : number(state.lag)],
        ["This worker", state.ready === null ? "…" : h("span", { class: `status ${state.ready.ready ? "ready" : "failed"}`, title: state.ready.reasons.join("; ") }, state.ready.ready ? "ready" : "not ready")],
        ...Object.entries(state.ready?.parts ?? {}).map(([part, is]) => [part, h("span", { class: `status ${is === "ready" ? "ready" : "failed"}` }, is)]),
      ]),
    );
  };
  tiles();

  repeatedly(2, signal, async () => {
    const [transactions, flight, behind, ready] = await Promise.all([
      get("/transactions", { limit: SHOWN }, signal),
      get("/operations/in-flight", {}, signal),
      get("/operations/lag", {}, signal),
      get("/operations/readiness", {}, signal),
    ]);
    showLive(live, transactions.data);
    showInFlight(inFlight, flight.data);
    showLag(lag, behind.stages);
    state.flight = flight.data.reduce((sum, { count }) => sum + count, 0);
    state.lag = behind.stages.reduce((sum, stage) => sum + stage.lag, 0);
    state.ready = ready;
    tiles();
  });

  const flow = new Flow(signal, (rows, range) => {
    showPlots(plots, rows, range, flow);
    showReasons(reasons, rows);
    state.rate = lastMinute(rows, range);
    tiles();
  });
  const range = h(
    "select",
    { id: "range", onchange: ({ target }) => flow.show(target.value) },
    Object.keys(RANGES).map((name) => h("option", {}, name)),
  );
  flow.show("1 hour");

  return [
    h("h1", { class: "unseen" }, "What goes on"),
    now,
    h("div", { class: "columns" }, panel("In flight", inFlight), panel("Refused, by reason", reasons)),
    h("section", { class: "panel", "aria-labelledby": "panel-flow" }, h("h2", { id: "panel-flow" }, "The last ", h("label", { class: "unseen", for: "range" }, "Hours to show"), range), plots),
    panel("Behind the log, in records", lag),
    panel("Latest transactions", live),
  ];
}

/** What has begun in the last hours. All of it is asked for once; then only what may have changed. */
class Flow {
  constructor(signal, show) {
    this.signal = signal;
    this.present = show;
    this.currency = null;
  }

  show(name) {
    this.range = RANGES[name];
    this.rows = null;
    this.asking?.abort();
    this.asking = new AbortController();
    this.signal.addEventListener("abort", () => this.asking.abort(), { once: true });
    const { signal } = this.asking;
    repeatedly(5, signal, () => this.ask(signal));
  }

  async ask(signal) {
    const { minutes, step } = this.range;
    const answer = await get("/operations/flow", { minutes: this.rows ? step * 2 : minutes, step }, signal);
    const oldest = new Date(Date.now() - minutes * 60_000).toISOString();
    const kept = (this.rows ?? []).filter(({ at }) => at < answer.since && at >= oldest);
    this.rows = [...kept, ...answer.data];
    this.again();
  }

  again() {
    this.present(this.rows, this.range);
  }
}

function stepsOf({ minutes, step }) {
  const length = step * 60_000;
  const last = Math.floor(Date.now() / length) * length;
  return Array.from({ length: Math.ceil(minutes / step) }, (_, index) => new Date(last - (minutes / step - 1 - index) * length));
}

/** Sum rows up, by step and series. */
function summed(rows, range, names, nameOf, valueOf) {
  const steps = stepsOf(range).map((at) => ({ at, values: names.map(() => 0) }));
  const places = new Map(steps.map((step) => [step.at.getTime(), step]));
  for (const row of rows) {
    const index = names.indexOf(nameOf(row));
    const step = places.get(Date.parse(row.at));
    if (step && index >= 0) {
      step.values[index] += valueOf(row);
    }
  }
  return steps;
}

function showPlots(box, rows, range, flow) {
  // Who is looking at a plot keeps it as it is.
  if (box.contains(document.activeElement) && document.activeElement.matches("figure, select")) {
    return;
  }
  const done = rows.filter((row) => row.status !== "failed");
  const failed = rows.filter((row) => row.status === "failed");
  const currencies = [...new Set(done.map(({ currency }) => currency).filter(Boolean))].sort();
  const currency = currencies.includes(flow.currency) ? flow.currency : (currencies[0] ?? null);
  const kinds = KINDS.map((name, index) => ({ name: `${name}s`, color: index + 1 }));
  const choice = h(
    "select",
    { "aria-label": "Currency", onchange: ({ target }) => ((flow.currency = target.value), target.blur(), flow.again()) },
    currencies.map((code) => h("option", { selected: code === currency }, code)),
  );
  box.replaceChildren(
    bars({ title: "Transactions", steps: summed(done, range, KINDS, ({ kind }) => kind, ({ count }) => count), series: kinds }),
    bars({ title: "Refused or failed", steps: summed(failed, range, KINDS, ({ kind }) => kind, ({ count }) => count), series: kinds }),
    currency
      ? h(
          "div",
          {},
          bars({
            title: `Volume in ${currency}`,
            steps: summed(done.filter((row) => row.currency === currency), range, KINDS, ({ kind }) => kind, ({ volume }) => inUnits(volume, currency)),
            series: kinds,
            text: compact,
          }),
          choice,
        )
      : h("p", { class: "faint" }, "No money has moved."),
  );
}

function compact(value) {
  return value.toLocaleString("en-GB", { notation: "compact", maximumFractionDigits: 1 });
}

function lastMinute(rows, { step }) {
  if (step !== 1) {
    return null;
  }
  const minute = Math.floor(Date.now() / 60_000) * 60_000 - 60_000;
  return rows.filter(({ at }) => Date.parse(at) === minute).reduce((sum, { count }) => sum + count, 0);
}

function showReasons(box, rows) {
  const counts = new Map();
  for (const { failure_code: code, count } of rows) {
    if (code) {
      counts.set(code, (counts.get(code) ?? 0) + count);
    }
  }
  const items = [...counts].map(([name, value]) => ({ name, value })).sort((one, other) => other.value - one.value);
  box.replaceChildren(ranking(items, "Nothing was refused."));
}

function showInFlight(box, rows) {
  box.replaceChildren(
    table(
      [
        ["Currency", (row) => row.currency],
        ["#Transfers", (row) => number(row.count)],
        ["#Amount", (row) => amount(row.volume, row.currency)],
        ["#Since", (row) => when(row.oldest_at)],
      ],
      rows,
      { caption: "Money on its way between wallets", empty: "No money is on its way: every transfer has ended." },
    ),
  );
}

function showLag(box, stages) {
  const partitions = stages[0]?.partitions ?? [];
  const cell = (lag) => h("span", { class: lag === 0 ? "faint" : lag >= BEHIND ? "far" : "behind" }, number(lag));
  box.replaceChildren(
    table(
      [
        ["Stage", (stage) => h("span", { title: stage.topic }, stage.stage)],
        ["#All", (stage) => cell(stage.lag)],
        ...partitions.map(({ partition }) => [`#${partition}`, (stage) => cell(stage.partitions[partition].lag)]),
      ],
      stages,
      { caption: "Records that each stage has not worked through, by partition" },
    ),
  );
}

function showLive(box, transactions) {
  const focused = document.activeElement?.closest("tr")?.dataset.id;
  const column = [...(document.activeElement?.closest("tr")?.querySelectorAll("a") ?? [])].indexOf(document.activeElement);
  const known = box.known;
  box.known = new Set(transactions.map(({ id }) => id));
  box.replaceChildren(transactionsTable(transactions, (transaction) => known && !known.has(transaction.id) && "new"));
  [...box.querySelectorAll("tbody tr")].forEach((row, index) => transactions[index] && (row.dataset.id = transactions[index].id));
  // What is focused stays so, although the row is a new one.
  if (focused) {
    box.querySelector(`tr[data-id="${CSS.escape(focused)}"]`)?.querySelectorAll("a")[column]?.focus();
  }
}

/** Return a table of transactions. */
export function transactionsTable(transactions, rowClass) {
  return table(
    [
      ["Began", (each) => when(each.created_at)],
      ["Transaction", (each) => transactionLink(each.id, short(each.id))],
      ["Kind", (each) => each.kind],
      ["From", (each) => walletLink(each.from_wallet_id, each.from_wallet_id && short(each.from_wallet_id))],
      ["To", (each) => walletLink(each.to_wallet_id, each.to_wallet_id && short(each.to_wallet_id))],
      ["#Amount", (each) => h("span", { class: "amount" }, money(each.amount, each.currency))],
      ["Status", (each) => [status(each.status), " ", each.failure && h("span", { class: "reason", title: each.failure.detail }, each.failure.code)]],
    ],
    transactions,
    { caption: "Transactions, the newest first", empty: "There are none.", rowClass },
  );
}
