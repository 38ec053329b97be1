/** The dialog in which the user enters credentials. */

import { areKept, credentials, forgetCredentials, setCredentials } from "./credentials.js";
import { h } from "./dom.js";
import { openDialog, toast } from "./feedback.js";
import { isUuid } from "./ids.js";
import { button, field, notice, select } from "./ui.js";

// What a header can hold (the server refuses the rest).
const VISIBLE = /^[\x21-\x7e]+$/;

/** Open the dialog. */
export function openCredentials() {
  const now = credentials();
  const kind = select(
    [
      ["none", "None (anonymous)"],
      ["key", "API key (x-api-key)"],
      ["token", "Bearer token (authorization)"],
    ],
    { value: now.kind, onchange: () => update() },
  );
  const value = h("input", { type: "password", value: now.value, autocomplete: "off", spellcheck: "false" });
  const onBehalfOf = h("input", { type: "text", value: now.onBehalfOf, autocomplete: "off", spellcheck: "false" });
  const keep = h("input", { type: "checkbox", checked: areKept() });
  const valueField = field({ label: "Key or token", input: value });
  const userField = field({
    label: "Act for a user",
    input: onBehalfOf,
    optional: true,
    hint: "The user's id, sent as x-on-behalf-of. Needs the permission act_for_users.",
  });
  const update = () => {
    valueField.hidden = kind.value === "none";
  };
  update();
  openDialog({
    title: "Credentials",
    body: [
      notice(
        "info",
        "They are sent with each call to this server, and to nobody else. They are kept in the memory of this page, and are gone when it is reloaded, unless you keep them for this tab.",
      ),
      field({ label: "Kind", input: kind }),
      valueField,
      userField,
      h("label.check", null, keep, "Keep them in this tab until it is closed (in the browser's session storage)"),
    ],
    onSubmit: (_, close) => {
      const text = value.value.trim().replace(/^Bearer\s+/i, "");
      const isMissing = kind.value !== "none" && !VISIBLE.test(text);
      valueField.setError(
        isMissing ? (text ? "It must be printable ASCII without spaces." : "Enter it, or choose None.") : "",
      );
      const user = onBehalfOf.value.trim();
      userField.setError(user && !isUuid(user) ? "It must be a UUID." : "");
      if (isMissing || (user && !isUuid(user))) {
        (isMissing ? value : onBehalfOf).focus();
        return;
      }
      setCredentials(
        { kind: kind.value, value: kind.value === "none" ? "" : text, onBehalfOf: user },
        { keep: keep.checked },
      );
      close();
      toast("The next calls use these credentials.", { kind: "good" });
    },
    actions: (close) => [
      (now.value || now.onBehalfOf) &&
        button({
          label: "Forget them",
          kind: "quiet",
          onclick: () => {
            forgetCredentials();
            close();
            toast("The credentials are forgotten.");
          },
        }),
      button({ label: "Cancel", onclick: () => close() }),
      button({ label: "Use", kind: "primary", type: "submit" }),
    ],
  });
}
