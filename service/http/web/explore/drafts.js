/** The requests that the user is writing, while the page is open: by the paths of their methods. */

const drafts = new Map();

/** Return the request that was being written for a method, as text; undefined if there is none. */
export function draft(methodPath) {
  return drafts.get(methodPath);
}

/** Keep a request for a method: its JSON as text. Explore shows it when the method is opened. */
export function setDraft(methodPath, request) {
  drafts.set(methodPath, request);
}
