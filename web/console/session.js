// The session and the API: every request of the console goes through here.
//
// The access token is in memory only; the refresh token is in the tab's session storage, so that a reload keeps the
// session and a closed tab ends it. Neither is ever part of an address.

const API = "/api/v1";
const KEPT = "mercuria.refresh_token";

const ANSWERS_WITHIN_MS = 40_000;

/** An answer that is a problem (RFC 9457), or no answer at all: then `status` is 0. `retryAfter` is in seconds. */
export class Problem extends Error {
  constructor(status, document, retryAfter = 0) {
    super(document?.detail ?? `The answer was ${status}.`);
    this.status = status;
    this.code = document?.code ?? "unknown";
    this.retryAfter = retryAfter;
  }

  /** Whether it may be over in a moment, with nothing done about it. */
  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export const NOT_AN_OPERATOR = "not_an_operator";

let token = null;
let user = null;
let refreshing = null;
let whenOver = () => {};

/** Have a function called when the session ends by itself. */
export function onOver(callback) {
  whenOver = callback;
}

/** Log in, and return who it is. People who are no operators are logged out again. */
export async function login(email, password) {
  return adopt(await send("POST", "/login", { body: { email, password } }));
}

/** Go on with the session that this tab had before it was reloaded; return who it is, or null. */
export async function resume() {
  return sessionStorage.getItem(KEPT) ? renew() : null;
}

/** End the session. */
export async function logout() {
  const refresh_token = sessionStorage.getItem(KEPT);
  forget();
  if (refresh_token) {
    await send("POST", "/logout", { body: { refresh_token } });
  }
}

/** Ask for something. */
export function get(path, query = {}, signal = undefined) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const text = new URLSearchParams(given).toString();
  return ask("GET", text ? `${path}?${text}` : path, { signal });
}

/** Ask for something to be done, once, however often it is sent with this key. */
export function post(path, body, key) {
  return ask("POST", path, { body, headers: { "Idempotency-Key": key } });
}

/** Return a new random key. */
export function newKey() {
  return "console-" + Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function ask(method, path, options) {
  const used = token;
  try {
    return await send(method, path, { ...options, token: used });
  } catch (problem) {
    if (problem.code !== "token_expired" && problem.code !== "invalid_token") {
      throw problem;
    }
  }
  // Another tab may have renewed it meanwhile.
  if (token === used && !(await renew())) {
    throw new Problem(401, { code: "session_over", detail: "The session has ended: log in again." });
  }
  return send(method, path, { ...options, token });
}

// A refresh token counts once: all who need a new session wait for the same one.
function renew() {
  refreshing ??= renewOnce().finally(() => {
    refreshing = null;
  });
  return refreshing;
}

async function renewOnce() {
  const refresh_token = sessionStorage.getItem(KEPT);
  try {
    return await adopt(await send("POST", "/refresh", { body: { refresh_token } }));
  } catch (problem) {
    if (problem.status !== 401) {
      throw problem;
    }
    forget();
    whenOver(problem);
    return null;
  }
}

async function adopt(session) {
  token = session.access_token;
  user = session.user;
  sessionStorage.setItem(KEPT, session.refresh_token);
  if (user.role !== "operator") {
    await logout();
    throw new Problem(403, { code: NOT_AN_OPERATOR, detail: "This console is for operators." });
  }
  return user;
}

function forget() {
  token = user = null;
  sessionStorage.removeItem(KEPT);
}

async function send(method, path, { body, headers = {}, token: bearer, signal } = {}) {
  signal?.throwIfAborted();
  const options = { method, headers: { ...headers }, cache: "no-store", credentials: "omit" };
  if (bearer) {
    options.headers.Authorization = `Bearer ${bearer}`;
  }
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  // An answer that never comes, or breaks off, is none.
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), ANSWERS_WITHIN_MS);
  const leave = () => giveUp.abort();
  signal?.addEventListener("abort", leave);
  let answer;
  let text;
  try {
    answer = await fetch(API + path, { ...options, signal: giveUp.signal });
    text = await answer.text();
  } catch {
    signal?.throwIfAborted();
    throw new Problem(0, { code: "no_answer", detail: "Mercuria does not answer." });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", leave);
  }
  const content = text ? parse(text) : null;
  if (!answer.ok) {
    throw new Problem(answer.status, content, Number(answer.headers.get("Retry-After")) || 0);
  }
  if (text && content === null) {
    // Whatever stands between here and Mercuria has answered in its place.
    throw new Problem(0, { code: "not_json", detail: "What answers is not Mercuria." });
  }
  return content;
}

// Amounts may be larger than what a double holds exactly.
function parse(text) {
  try {
    return JSON.parse(text, (_name, value, context) =>
      typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
        ? BigInt(context.source)
        : value,
    );
  } catch {
    return null;
  }
}
