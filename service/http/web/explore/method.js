/** One method. */

import { h } from "../lib/dom.js";
import { pageHeader } from "../lib/ui.js";

export default async function view({ params, setTitle }) {
  setTitle(params.method);
  return h("div.page", null, pageHeader({ title: params.method, back: { href: "#/explore", label: "Explore" } }));
}
