/**
 * The last calls, in the browser's local storage: requests without their secret fields, and without credentials or
 * responses.
 */

const KEY = "console.history";
const MOST_CALLS = 100;
const MOST_CHARACTERS = 4000;

/**
 * @typedef {{id: string, method: string, at: string, ms: number, code: string, reason: string, request: object | null}} Call
 *   `request` is null if it was too large to keep.
 */

/** Return the calls, the latest first. @returns {Call[]} */
export function calls() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter((call) => typeof call?.method === "string") : [];
  } catch {
    // Storage is blocked, or holds something else: then there are none.
    return [];
  }
}

/** Add a call. */
export function remember(schema, method, request, { ms, code, reason = "" }) {
  const kept = withoutSecrets(schema, method.input, request);
  const call = {
    id: `${Date.now().toString(36)}${Math.floor(performance.now() % 1000).toString(36)}`,
    method: method.path,
    at: new Date().toISOString(),
    ms: Math.round(ms),
    code,
    reason,
    request: JSON.stringify(kept).length > MOST_CHARACTERS ? null : kept,
  };
  store([call, ...calls()].slice(0, MOST_CALLS));
}

/** Return a call by its id, or undefined. */
export function callById(id) {
  return calls().find((call) => call.id === id);
}

/** Forget all calls. */
export function forgetCalls() {
  store([]);
}

function store(all) {
  try {
    all.length ? localStorage.setItem(KEY, JSON.stringify(all)) : localStorage.removeItem(KEY);
  } catch {
    // Storage is blocked or full: the history ends here.
  }
}

/** Return a request without its secret fields, and without fields that its message does not have: one may be a secret. */
function withoutSecrets(schema, messageName, value) {
  const message = schema.message(messageName);
  if (!message || typeof value !== "object" || value === null || Array.isArray(value)) {
    return value;
  }
  const kept = {};
  for (const field of message.fields) {
    const key = field.json in value ? field.json : field.name;
    if (Object.hasOwn(value, key) && !field.secret) {
      kept[field.json] = keptValue(schema, field, value[key]);
    }
  }
  return kept;
}

function keptValue(schema, field, content) {
  if (field.type !== "message") {
    return content;
  }
  if (field.label === "repeated" && Array.isArray(content)) {
    return content.map((element) => withoutSecrets(schema, field.ref, element));
  }
  if (field.label === "map" && typeof content === "object" && content !== null) {
    return Object.fromEntries(
      Object.entries(content).map(([key, element]) => [key, withoutSecrets(schema, field.ref, element)]),
    );
  }
  return withoutSecrets(schema, field.ref, content);
}
