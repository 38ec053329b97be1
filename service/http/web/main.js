/** The frame around all views: navigation, credentials, theme. */

import { credentials, onCredentials } from "./lib/credentials.js";
import { openCredentials } from "./lib/credentials_dialog.js";
import { h, icon, replace } from "./lib/dom.js";
import { feedbackRegions } from "./lib/feedback.js";
import { start } from "./lib/router.js";
import { themeButton } from "./lib/theme_button.js";
import { errorPanel, pageHeader } from "./lib/ui.js";
import { HOME, ROUTES, SECTIONS } from "./routes.js";

const links = new Map(
  SECTIONS.map(({ id, label, path, icon: name }) => [
    id,
    h("a.nav-link", { href: `#${path}` }, icon(name), h("span", null, label)),
  ]),
);

function credentialsButton() {
  const text = h("span", null);
  const element = h(
    "button.button.quiet.credentials",
    { type: "button", onclick: () => openCredentials() },
    icon("key"),
    text,
  );
  const update = () => {
    const { kind, value, onBehalfOf } = credentials();
    const what = { key: "API key", token: "Token" }[kind];
    replace(text, value && what ? what : "No credentials", onBehalfOf && " for a user");
    element.classList.toggle("is-set", Boolean(value));
  };
  onCredentials(update);
  update();
  return element;
}

const main = h("main", { id: "main", tabindex: -1 });

document.body.append(
  h("a.skip-link", { href: "#main", onclick: skip }, "Skip to the content"),
  h(
    "header.top",
    null,
    h(
      "a.brand",
      { href: "#/" },
      h("img", { src: "icon.svg", alt: "", width: 24, height: 24 }),
      h("span", null, "Console"),
    ),
    h("nav.sections", { "aria-label": "Sections" }, [...links.values()]),
    h("div.top-actions", null, credentialsButton(), themeButton()),
  ),
  main,
  ...feedbackRegions(),
);

// The hash of the address is that of the view, so a link within the page must not change it.
function skip(event) {
  event.preventDefault();
  main.focus();
}

function onRoute(route) {
  for (const [id, link] of links) {
    id === route?.section ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
}

function failed(error) {
  return h(
    "div.page",
    null,
    pageHeader({ title: "This page cannot be shown" }),
    errorPanel(error, { retry: () => location.reload() }),
  );
}

start({ main, routes: ROUTES, home: HOME, onRoute, failed });
