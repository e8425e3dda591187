// The session and the API: every request of the console goes through here.
//
// The access token is in memory only; the refresh token is in the tab's session storage, so that a reload keeps the
// session and a closed tab ends it. Neither is ever part of an address.

const API = "/api/v1";
const KEPT = "mercuria.refresh_token";

/** An answer that is a problem (RFC 9457), or no answer at all. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? `The answer was ${status}.`);
    this.status = status;
    this.code = document.code ?? "unknown";
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

/** Return whether the worker that answers is ready, and its parts. It is asked without a session. */
export async function readiness() {
  const answer = await fetch("/health/ready", { cache: "no-store", credentials: "omit" });
  return answer.json();
}

/** Return a key that nobody else has. */
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
  // Somebody else here may have renewed it meanwhile.
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
  const options = { method, headers: { ...headers }, cache: "no-store", credentials: "omit", signal };
  if (bearer) {
    options.headers.Authorization = `Bearer ${bearer}`;
  }
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(API + path, options);
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new Problem(0, { code: "no_answer", detail: "Mercuria does not answer." });
  }
  const text = await answer.text();
  const content = text ? parse(text) : null;
  if (!answer.ok) {
    throw new Problem(answer.status, content ?? {});
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
    return {};
  }
}
