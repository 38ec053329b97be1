/** Explore: all services and methods, with a search. */

import { h } from "../lib/dom.js";
import { loadSchema } from "../lib/schema.js";
import { pageHeader } from "../lib/ui.js";

export default async function view() {
  const schema = await loadSchema();
  return h(
    "div.page",
    null,
    pageHeader({ title: "Explore", lead: "All methods of the services." }),
    schema.services.map((service) =>
      h(
        "section",
        null,
        h("h2", null, service.name),
        h("ul", null, service.methods.map((method) => h("li", null, h("a", { href: `#/explore/${service.name}/${method.name}` }, method.name)))),
      ),
    ),
  );
}
