/** The view of all users: a search, and a table with filters. */

import { h } from "../lib/dom.js";
import { isUuid } from "../lib/ids.js";
import { navigate, setQuery } from "../lib/router.js";
import { call } from "../lib/rpc.js";
import { timeElement } from "../lib/time.js";
import { badge, button, emptyState, notice, pageHeader, table } from "../lib/ui.js";
import { openAction } from "./action_dialog.js";
import { createUser } from "./actions_of_users.js";
import { choice, choices, filterForm, grouped, interval, intervalOf, text } from "./filters.js";
import { methodOfUser, users } from "./methods.js";
import { workView } from "./navigation.js";
import { pager } from "./pager.js";
import { loaded, statusBadge } from "./parts.js";
import { remember, userHref } from "./references.js";
import { stateOf, USER_STATES } from "./user_actions.js";

const PAGE_SIZE = 25;
const SORTS = {
  newest: "LIST_USERS_ORDER_BY_NEWEST",
  oldest: "LIST_USERS_ORDER_BY_OLDEST",
  username: "LIST_USERS_ORDER_BY_USERNAME",
};

/** Return the request of ListUsers for the query of an address, without its page. */
export function listRequest(query) {
  const superuser = query.get("superuser");
  return {
    states: query.getAll("state").map((state) => `USER_STATE_${state}`),
    createTime: intervalOf(query),
    ...(superuser && { superuser: superuser === "yes" }),
    showDeleted: query.getAll("deleted").includes("yes"),
    orderBy: SORTS[query.get("sort")] ?? SORTS.newest,
  };
}

/** The view. */
export default workView("users", ({ query, signal }) => {
  let current = query;
  const results = loaded(load, signal);

  async function load() {
    const search = current.get("q") ?? "";
    const token = current.get("page") ?? "";
    const { list, next, total, truncated } = await find(search, token);
    for (const user of list) {
      remember("user", user);
    }
    return h(
      "div.results",
      null,
      truncated && notice("info", "More users match than are ranked. Add a word to find better matches."),
      list.length ? usersTable(list) : nothing(search),
      (list.length > 0 || token) &&
        pager({
          count: list.length,
          noun: "user",
          token,
          next,
          onPage: (page) => show({ ...Object.fromEntries(grouped(current)), page }, { focus: true }),
          total,
        }),
    );
  }

  /** Find users: one by its e-mail address or id, some by a search, or all that match the filters. */
  async function find(search, token) {
    if (search.includes("@") || isUuid(search)) {
      return one(search.includes("@") ? { email: search } : { id: search });
    }
    const [method, request, listOf] = search
      ? [
          "SearchUsers",
          { query: search, showDeleted: current.getAll("deleted").includes("yes") },
          ({ results: found = [] }) => found.map(({ user }) => user),
        ]
      : ["ListUsers", listRequest(current), ({ users: found = [] }) => found];
    const response = await call(users(method), { ...request, pageSize: PAGE_SIZE, pageToken: token }, { signal });
    return {
      list: listOf(response),
      next: response.nextPageToken ?? "",
      truncated: response.truncated,
      total: async () => {
        const counted = await call(users(method), { ...request, pageSize: 1, includeTotalSize: true }, { signal });
        return counted.totalSize ?? "0";
      },
    };
  }

  async function one(key) {
    try {
      const { user } = await call(methodOfUser, key, { signal });
      return { list: [user], next: "" };
    } catch (error) {
      if (error.code === "NOT_FOUND") {
        return { list: [], next: "" };
      }
      throw error;
    }
  }

  function nothing(search) {
    if (search) {
      return emptyState({
        icon: "search",
        title: "No user matches",
        text: "A search compares whole words of usernames, full names and bios; the last word can be the beginning of one.",
      });
    }
    const isFiltered = [...current.keys()].some((key) => key !== "sort");
    return isFiltered
      ? emptyState({ icon: "filter", title: "No user matches", text: "Remove a filter to see more." })
      : emptyState({ icon: "users", title: "No users yet", text: "The first user appears here." });
  }

  function show(values, options) {
    current = setQuery(values);
    listFilters.disabled = Boolean(current.get("q"));
    results.reload(options);
  }

  const create = async () => {
    const result = await openAction({ action: createUser(), signal });
    if (result?.response) {
      navigate(`/users/${result.response.user.id}`);
    } else if (result) {
      results.reload();
    }
  };

  // SearchUsers has none of these.
  const listFilters = h(
    "fieldset.plain.list-filters",
    { disabled: Boolean(query.get("q")) },
    choices({ label: "State", name: "state", values: USER_STATES, chosen: query.getAll("state") }),
    h(
      "div.filter-row",
      null,
      choice({
        label: "Superusers",
        name: "superuser",
        options: [
          ["", "All users"],
          ["yes", "Only superusers"],
          ["no", "No superusers"],
        ],
        value: query.get("superuser") ?? "",
      }),
      choice({
        label: "Sort",
        name: "sort",
        options: [
          ["", "Newest first"],
          ["oldest", "Oldest first"],
          ["username", "By username"],
        ],
        value: query.get("sort") ?? "",
      }),
    ),
    interval({ label: "Created", query }),
  );

  return [
    pageHeader({
      title: "Users",
      actions: [
        button({ label: "Reload", icon: "refresh", onclick: () => results.reload() }),
        button({ label: "New user", icon: "plus", kind: "primary", onclick: create }),
      ],
    }),
    filterForm(
      "Find and filter users",
      show,
      h(
        "div.filter-row.search-row",
        null,
        text({
          label: "Search",
          name: "q",
          value: query.get("q") ?? "",
          placeholder: "words, an e-mail address or an id",
          type: "search",
        }),
        h(
          "label.check",
          null,
          h("input", {
            type: "checkbox",
            name: "deleted",
            value: "yes",
            checked: query.getAll("deleted").includes("yes"),
          }),
          "With deleted users",
        ),
      ),
      listFilters,
    ),
    results,
  ];
});

/** Return a table of users. */
function usersTable(list) {
  return table({
    caption: "Users",
    rows: list,
    href: (user) => userHref(user.id),
    columns: [
      { label: "Username", cell: (user) => user.username },
      { label: "Full name", cell: (user) => user.fullName || h("span.quiet", null, "–") },
      { label: "E-mail", cell: (user) => user.email },
      {
        label: "State",
        cell: (user) => h("span.tags", null, statusBadge(stateOf(user)), user.superuser && badge("superuser", "info")),
      },
      { label: "Created", cell: (user) => timeElement(user.createTime, "relative") },
    ],
  });
}
