/** The list of methods, and the search in it. */

import { h } from "../lib/dom.js";
import { shortName } from "../lib/schema.js";
import { badge } from "../lib/ui.js";

/** Return the address of a method. */
export function methodHref(method) {
  return `#/explore/${method.service}/${method.name}`;
}

/** Return the first sentence of a method's comment. */
export function summaryOf(method) {
  return method.doc.split(/(?<=\.)\s/)[0].replaceAll("`", "");
}

/** Return what kind of method it is, as badges. */
export function methodBadges(method) {
  return [
    method.reads ? badge("reads", "neutral") : badge("writes", "info"),
    method.kind === "server_stream" && badge("streams", "neutral"),
    method.kind === "client_stream" && badge("streams requests", "neutral"),
  ];
}

/**
 * Return the methods that a search finds, the best first: all words must be in the name, the comment, the permission, the
 * errors or the fields of the method. An empty search finds all, in their order.
 */
export function searchMethods(schema, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const all = [...schema.methods.values()];
  if (words.length === 0) {
    return all;
  }
  return all
    .map((method) => ({ method, score: score(schema, method, words) }))
    .filter((found) => found.score > 0)
    .sort((one, other) => other.score - one.score)
    .map(({ method }) => method);
}

function score(schema, method, words) {
  const name = method.name.toLowerCase();
  const more = haystack(schema, method);
  let total = 0;
  for (const word of words) {
    const own = name === word ? 8 : name.startsWith(word) ? 5 : name.includes(word) ? 4 : more.includes(word) ? 1 : 0;
    if (own === 0) {
      return 0;
    }
    total += own;
  }
  return total;
}

const haystacks = new Map();

function haystack(schema, method) {
  if (!haystacks.has(method.path)) {
    const parts = [
      method.path,
      method.doc,
      method.permission,
      ...method.errors.flat(),
      ...fieldNames(schema, method.input),
    ];
    haystacks.set(method.path, parts.join(" ").toLowerCase());
  }
  return haystacks.get(method.path);
}

/** Return the methods by their services, as a list of links; the current one is marked. */
export function methodLinks(schema, current) {
  return schema.services.map((service) =>
    h(
      "section.method-group",
      null,
      h("h2", null, shortName(service.name)),
      h(
        "ul",
        null,
        service.methods.map((method) =>
          h(
            "li",
            null,
            h("a", { href: methodHref(method), "aria-current": method.path === current ? "page" : null }, method.name),
          ),
        ),
      ),
    ),
  );
}

/** Return the names of the fields that a caller can set, also those one level below. */
function fieldNames(schema, messageName, depth = 0) {
  const fields = schema.message(messageName)?.fields.filter((field) => !field.output) ?? [];
  return fields.flatMap((field) => [field.name, ...(field.ref && depth === 0 ? fieldNames(schema, field.ref, 1) : [])]);
}
