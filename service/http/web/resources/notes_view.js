/** The view that searches the words of notes. */

import { h } from "../lib/dom.js";
import { setQuery } from "../lib/router.js";
import { call } from "../lib/rpc.js";
import { emptyState, notice, pageHeader } from "../lib/ui.js";
import { filterForm, grouped, text, userIdOf } from "./filters.js";
import { orders } from "./methods.js";
import { workView } from "./navigation.js";
import { noteElement } from "./notes_card.js";
import { pager } from "./pager.js";
import { loaded } from "./parts.js";
import { fillNames } from "./references.js";

const PAGE_SIZE = 20;

/** The view. */
export default workView("notes", ({ query, signal }) => {
  let current = query;
  const results = loaded(load, signal);

  async function load() {
    const words = current.get("q") ?? "";
    const author = current.get("author") ?? "";
    if (!words && !author) {
      return emptyState({
        icon: "search",
        title: "Search notes",
        text: "Write words that notes contain, or name their author.",
      });
    }
    const { list, next, truncated, request } = await find(words, author, current.get("page") ?? "");
    const element = h(
      "div.results",
      null,
      truncated && notice("info", "More notes match than are ranked. Add a word to find better matches."),
      list.length
        ? h(
            "ul.notes.card",
            null,
            list.map(({ note, snippet }) =>
              h(
                "li",
                null,
                noteElement(note, {
                  signal,
                  body: snippet === undefined ? note.body : marked(snippet),
                  onChange: () => results.reload({ quietly: true }),
                }),
              ),
            ),
          )
        : emptyState({
            icon: "search",
            title: "No note matches",
            text: "A search compares whole words; drafts are shown if you ask for them.",
          }),
      pager({
        count: list.length,
        noun: "note",
        token: current.get("page") ?? "",
        next,
        onPage: (page) => show({ ...Object.fromEntries(grouped(current)), page }, { focus: true }),
        total: async () => {
          const counted = await call(
            request.method,
            { ...request.body, pageSize: 1, includeTotalSize: true },
            { signal },
          );
          return counted.totalSize ?? "0";
        },
      }),
    );
    fillNames(element, signal);
    return element;
  }

  async function find(words, author, pageToken) {
    const authorId = author && (await userIdOf(author, signal));
    const filters = { authorId, includeDrafts: current.getAll("drafts").includes("yes") };
    const request = words
      ? { method: orders("SearchOrderNotes"), body: { query: words, ...filters } }
      : { method: orders("ListOrderNotes"), body: filters };
    const response = await call(request.method, { ...request.body, pageSize: PAGE_SIZE, pageToken }, { signal });
    return {
      list: response.matches ?? (response.notes ?? []).map((note) => ({ note })),
      next: response.nextPageToken ?? "",
      truncated: response.truncated,
      request,
    };
  }

  function show(values, options) {
    current = setQuery(values);
    results.reload(options);
  }

  return [
    pageHeader({ title: "Notes", lead: "Notes about orders, found by their words." }),
    filterForm(
      "Search notes",
      show,
      h(
        "div.filter-row.search-row",
        null,
        text({
          label: "Words",
          name: "q",
          type: "search",
          value: query.get("q") ?? "",
          hint: 'All words must occur. "A phrase" in quotes, or between alternatives, - before what must not occur.',
        }),
        text({
          label: "Author",
          name: "author",
          value: query.get("author") ?? "",
          placeholder: "username, e-mail or id",
        }),
        h(
          "label.check",
          null,
          h("input", {
            type: "checkbox",
            name: "drafts",
            value: "yes",
            checked: query.getAll("drafts").includes("yes"),
          }),
          "With drafts",
        ),
      ),
    ),
    results,
  ];
});

/** Return a snippet, in which `**` is around each matching word, as text with marks. */
export function marked(snippet) {
  return snippet.split("**").map((part, index) => (index % 2 ? h("mark", null, part) : part));
}
