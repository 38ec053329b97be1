/** Links to users and orders by their ids, which get names as soon as these are known. */

import { onCredentials } from "../lib/credentials.js";
import { h } from "../lib/dom.js";
import { shortId } from "../lib/ids.js";
import { href } from "../lib/router.js";
import { call } from "../lib/rpc.js";
import { orders, users } from "./methods.js";

const BATCH = 100;
const REMEMBERED = 5_000;

// `asked` has the answers that have come or are to come, by id, so that what cannot be read is not asked for again.
const KINDS = {
  user: {
    method: users("BatchGetUsers"),
    list: "users",
    name: (user) => user.username,
    names: new Map(),
    asked: new Map(),
  },
  order: {
    method: orders("BatchGetOrders"),
    list: "orders",
    name: (order) => order.orderNumber,
    names: new Map(),
    asked: new Map(),
  },
};

// What one caller may know is not for the next one.
onCredentials(() => {
  for (const { names, asked } of Object.values(KINDS)) {
    names.clear();
    asked.clear();
  }
});

/** Return the address of a user. */
export function userHref(id) {
  return href(`/users/${id}`);
}

/** Return the address of an order, by its number or id. */
export function orderHref(key) {
  return href(`/orders/${key}`);
}

/** Return a link to a user. */
export function userLink(id) {
  return id ? reference("user", id, userHref(id)) : h("span.quiet", null, "–");
}

/** Return a link to an order. */
export function orderLink(id) {
  return reference("order", id, orderHref(id));
}

function reference(kind, id, address) {
  const name = KINDS[kind].names.get(id);
  return h("a", { href: address, title: id, dataset: name ? {} : { [kind]: id } }, name ?? shortId(id));
}

/** Remember names that are known already. */
export function remember(kind, resource) {
  const { name, names } = KINDS[kind];
  keep(names, resource.id, name(resource));
}

function keep(map, id, value) {
  if (map.size >= REMEMBERED) {
    map.delete(map.keys().next().value);
  }
  map.set(id, value);
}

/** Fill in the names of all links inside an element; a name that cannot be read leaves the id. */
export async function fillNames(element, signal) {
  await Promise.all(Object.keys(KINDS).map((kind) => fill(kind, element, signal)));
}

async function fill(kind, element, signal) {
  const links = [...element.querySelectorAll(`a[data-${kind}]`)];
  const { names, asked } = KINDS[kind];
  const ids = [...new Set(links.map((link) => link.dataset[kind]))].filter((id) => !names.has(id));
  const fresh = ids.filter((id) => !asked.has(id)).slice(0, BATCH);
  if (fresh.length) {
    const answer = ask(kind, fresh, signal);
    for (const id of fresh) {
      keep(asked, id, answer);
    }
  }
  // Also those that another element has asked for.
  await Promise.all(ids.map((id) => asked.get(id)));
  for (const link of links) {
    const name = names.get(link.dataset[kind]);
    if (name) {
      link.textContent = name;
      delete link.dataset[kind];
    }
  }
}

async function ask(kind, ids, signal) {
  const { method, list, asked } = KINDS[kind];
  try {
    const response = await call(method, { ids }, { signal });
    for (const resource of response[list] ?? []) {
      remember(kind, resource);
    }
  } catch (error) {
    if (error.code === "NOT_FOUND" && ids.length > 1) {
      // One that does not exist any more fails the call for all. One half after the other, to be no burden.
      const middle = Math.ceil(ids.length / 2);
      await ask(kind, ids.slice(0, middle), signal);
      await ask(kind, ids.slice(middle), signal);
    } else if (signal?.aborted || error.code === "UNAVAILABLE" || Number.isFinite(error.retryAfterMs)) {
      // It may be answered another time. Else the caller may not read them: the ids say enough.
      for (const id of ids) {
        asked.delete(id);
      }
    }
  }
}
