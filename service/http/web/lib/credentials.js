/**
 * The credentials that the user enters. They are sent as headers of calls, and to nobody else; they are never part of an
 * address, of the history, or of what is copied.
 *
 * They are kept in memory, so that they are gone when the page is reloaded, or, if the user wants, in the browser's
 * storage of this tab, which ends with the tab.
 */

const KEY = "console.credentials";
const NONE = Object.freeze({ kind: "none", value: "", onBehalfOf: "" });

/** @typedef {{kind: "none" | "key" | "token", value: string, onBehalfOf: string}} Credentials */

let current = stored() ?? NONE;
const changes = new EventTarget();

function stored() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    return found && ["none", "key", "token"].includes(found.kind) ? { ...NONE, ...found } : null;
  } catch {
    // Storage is blocked, or holds something else: then there are none.
    return null;
  }
}

/** Return the credentials. @returns {Credentials} */
export function credentials() {
  return current;
}

/** Return whether they outlive a reload of the page. */
export function areKept() {
  return stored() !== null;
}

/** Replace the credentials. With `keep`, they are kept until the tab is closed. */
export function setCredentials(given, { keep = false } = {}) {
  current = { ...NONE, ...given };
  try {
    sessionStorage.removeItem(KEY);
    if (keep && (current.value || current.onBehalfOf)) {
      sessionStorage.setItem(KEY, JSON.stringify(current));
    }
  } catch {
    // Storage is blocked: they are kept in memory only.
  }
  changes.dispatchEvent(new Event("change"));
}

/** Forget the credentials. */
export function forgetCredentials() {
  setCredentials(NONE);
}

/** Call a function whenever the credentials change, until the signal is aborted. */
export function onCredentials(listener, signal) {
  changes.addEventListener("change", listener, { signal });
}

/** Return the headers of a call. */
export function credentialHeaders() {
  const headers = {};
  if (current.kind === "key" && current.value) {
    headers["x-api-key"] = current.value;
  } else if (current.kind === "token" && current.value) {
    headers.authorization = `Bearer ${current.value}`;
  }
  if (current.onBehalfOf) {
    headers["x-on-behalf-of"] = current.onBehalfOf;
  }
  return headers;
}
