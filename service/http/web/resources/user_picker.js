/** A user, found by username, e-mail address or id, with suggestions while typing. */

import { h, replace, uniqueId } from "../lib/dom.js";
import { isUuid } from "../lib/ids.js";
import { call } from "../lib/rpc.js";
import { labelled, problem } from "./controls.js";
import { users } from "./methods.js";

const SUGGESTIONS = 8;
const TYPING_PAUSE_MS = 200;

/** Return the key of GetUser for what a person typed; null if no user can have it. */
export function userKey(text) {
  const trimmed = text.trim();
  if (isUuid(trimmed)) return { id: trimmed };
  if (trimmed.includes("@")) return { email: trimmed };
  return /^[A-Za-z0-9_.-]{3,50}$/.test(trimmed) ? { username: trimmed } : null;
}

/** Return the control of a field of kind `user`; its value is the user in JSON. */
export function userPicker(field, signal) {
  const list = h("datalist", { id: uniqueId("users") });
  const input = h("input", {
    type: "text",
    list: list.id,
    autocomplete: "off",
    spellcheck: "false",
    value: field.value?.username ?? "",
    oninput: suggest,
  });
  const hint = `${field.hint ? `${field.hint} ` : ""}Username, e-mail address or id.`;
  const parts = labelled({ ...field, hint }, input, { extra: list });
  // The user that was found last, and for which text.
  let found = field.value ? { text: input.value, user: field.value } : null;
  let timer = 0;

  function suggest() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const query = input.value.trim();
      if (query.length < 2 || query.includes("@") || isUuid(query)) return;
      try {
        const { results = [] } = await call(users("SearchUsers"), { query, pageSize: SUGGESTIONS }, { signal });
        const label = ({ username, fullName }) => (fullName ? `${fullName} (${username})` : username);
        replace(
          list,
          results.map(({ user }) => h("option", { value: user.username, label: label(user) })),
        );
      } catch {
        // Suggestions are a help only: without the permission to search, the whole name can be typed.
        replace(list);
      }
    }, TYPING_PAUSE_MS);
  }

  return {
    ...parts,
    read: async () => {
      const text = input.value.trim();
      if (!text) throw problem(field.path, "must be set");
      if (found?.text === text) return found.user;
      const key = userKey(text);
      if (!key) throw problem(field.path, "is no username, e-mail address or id");
      try {
        const { user } = await call(users("GetUser"), key, { signal });
        found = { text, user };
        return user;
      } catch (error) {
        if (error.code === "NOT_FOUND") throw problem(field.path, "no user has this username, e-mail address or id");
        if (error.code === "INVALID_ARGUMENT") throw problem(field.path, error.message);
        // A caller that may not read users can still name one by its id.
        if (error.code === "PERMISSION_DENIED" && key.id) return { id: key.id, username: key.id };
        throw error;
      }
    },
  };
}
