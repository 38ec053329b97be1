/** Explore: all services and methods, with a search. */

import { h, inline, prose, replace } from "../lib/dom.js";
import { announce } from "../lib/feedback.js";
import { setQuery } from "../lib/router.js";
import { loadSchema, shortName } from "../lib/schema.js";
import { emptyState, pageHeader } from "../lib/ui.js";
import { methodBadges, methodHref, searchMethods, summaryOf } from "./method_list.js";

const ANNOUNCE_MS = 500;

export default async function view({ query }) {
  const schema = await loadSchema();
  const results = h("div.search-results", null);
  const input = h("input", {
    type: "search",
    id: "method-search",
    value: query.get("q") ?? "",
    placeholder: "Search names, comments, fields, errors, permissions",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      setQuery({ q: input.value });
      show();
      tellSoon();
    },
  });
  let telling;
  const tellSoon = () => {
    clearTimeout(telling);
    const count = searchMethods(schema, input.value).length;
    telling = setTimeout(() => {
      // Not after the user has gone to another view: that has messages of its own.
      if (input.isConnected) {
        announce(count === 1 ? "1 method found" : `${count} methods found`);
      }
    }, ANNOUNCE_MS);
  };
  const show = () => replace(results, input.value.trim() ? found(schema, input.value) : services(schema));
  show();
  return h(
    "div.page.explore-index",
    null,
    pageHeader({
      title: "Explore",
      lead: "Every method of the services, with its documentation and a form to call it on this server.",
      actions: [h("a.button", { href: "#/explore/history" }, "History")],
    }),
    h("search", null, h("label.visually-hidden", { for: input.id }, "Search methods"), input),
    results,
  );
}

function services(schema) {
  return schema.services.map((service) => {
    const [first, ...rest] = service.doc.split("\n\n");
    return h(
      "section",
      null,
      h("header.service-header", null, h("h2", null, shortName(service.name)), h("code", null, service.name)),
      h("div.lead", null, prose(first)),
      rest.length > 0 &&
        h(
          "details.more",
          null,
          h("summary", null, "What holds for all of its methods"),
          h("div", null, prose(rest.join("\n\n"))),
        ),
      methodCards(service.methods),
    );
  });
}

function found(schema, text) {
  const methods = searchMethods(schema, text);
  return methods.length
    ? methodCards(methods)
    : emptyState({
        icon: "search",
        title: "No method fits",
        text: "Search for a part of a name, a field such as tracking_number, or a reason such as ETAG_MISMATCH.",
      });
}

function methodCards(methods) {
  return h(
    "ul.method-cards",
    null,
    methods.map((method) =>
      h(
        "li",
        null,
        h(
          "a.method-card",
          { href: methodHref(method) },
          h("span.method-name", null, method.name),
          h("span.badges", null, methodBadges(method)),
          h("span.method-summary", null, inline(summaryOf(method))),
        ),
      ),
    ),
  );
}
