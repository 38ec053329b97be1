/** The switch between the system's theme, light and dark. */

import { h, icon, replace } from "./dom.js";
import { announce } from "./feedback.js";

const KEY = "console.theme";
const THEMES = [
  ["", "System theme", "system"],
  ["light", "Light theme", "sun"],
  ["dark", "Dark theme", "moon"],
];

/** Return a button that goes to the next theme. */
export function themeButton() {
  const element = h("button.button.quiet.icon-only", {
    type: "button",
    onclick: () => {
      const next = THEMES[(position() + 1) % THEMES.length];
      choose(next[0]);
      update();
      announce(next[1]);
    },
  });
  const update = () => {
    const [, label, name] = THEMES[position()];
    element.title = `${label} (click for the next)`;
    replace(element, icon(name), h("span.visually-hidden", null, label));
  };
  update();
  return element;
}

function position() {
  const theme = document.documentElement.dataset.theme ?? "";
  return THEMES.findIndex(([id]) => id === theme);
}

function choose(theme) {
  if (theme) {
    document.documentElement.dataset.theme = theme;
  } else {
    delete document.documentElement.dataset.theme;
  }
  try {
    theme ? localStorage.setItem(KEY, theme) : localStorage.removeItem(KEY);
  } catch {
    // Storage is blocked: the theme lasts until the page is reloaded.
  }
}
