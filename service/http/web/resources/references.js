/** Links to users and orders by their ids, which get names as soon as these are known. */

import { onCredentials } from "../lib/credentials.js";
import { h } from "../lib/dom.js";
import { href } from "../lib/router.js";
import { call } from "../lib/rpc.js";
import { shortId } from "./ids.js";
import { orders, users } from "./methods.js";

const BATCH = 100;
const REMEMBERED = 5_000;

const KINDS = {
  user: { method: users("BatchGetUsers"), list: "users", name: (user) => user.username, names: new Map() },
  order: { method: orders("BatchGetOrders"), list: "orders", name: (order) => order.orderNumber, names: new Map() },
};

// What one caller may know is not for the next one.
onCredentials(() => {
  for (const { names } of Object.values(KINDS)) {
    names.clear();
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
  if (names.size >= REMEMBERED) {
    names.delete(names.keys().next().value);
  }
  names.set(resource.id, name(resource));
}

/** Fill in the names of all links inside an element; a name that cannot be read leaves the id. */
export async function fillNames(element, signal) {
  await Promise.all(Object.keys(KINDS).map((kind) => fill(kind, element, signal)));
}

async function fill(kind, element, signal) {
  const links = [...element.querySelectorAll(`a[data-${kind}]`)];
  const { method, list, names } = KINDS[kind];
  const ids = [...new Set(links.map((link) => link.dataset[kind]))].filter((id) => !names.has(id)).slice(0, BATCH);
  if (ids.length) {
    try {
      const response = await call(method, { ids }, { signal });
      for (const resource of response[list] ?? []) {
        remember(kind, resource);
      }
    } catch {
      // The caller may not read them, or one of them does not exist any more: the ids say enough.
    }
  }
  for (const link of links) {
    const name = names.get(link.dataset[kind]);
    if (name) {
      link.textContent = name;
      delete link.dataset[kind];
    }
  }
}
