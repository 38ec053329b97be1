/** One method: its documentation, its request, its response, and the same call for other tools. */

import { credentials, onCredentials } from "../lib/credentials.js";
import { fetchJson, once } from "../lib/documents.js";
import { h, icon, inline, prose, replace } from "../lib/dom.js";
import { announce } from "../lib/feedback.js";
import { call, infoOf, stream } from "../lib/rpc.js";
import { loadSchema } from "../lib/schema.js";
import { badge, button, card, copyButton, emptyState, notice, pageHeader, tabs } from "../lib/ui.js";
import { callById, remember } from "./history_store.js";
import { methodBadges, methodLinks } from "./method_list.js";
import { requestEditor } from "./request.js";
import { failed, MOST_RESPONSES, nothingYet, running, streaming, succeeded } from "./response.js";
import { snippets } from "./snippets.js";

// As in style/explore.css.
const ONE_COLUMN = matchMedia("(max-width: 75rem)");

export default async function view({ params, query, signal, setTitle }) {
  const [schema, server] = await Promise.all([loadSchema(), serverInfo()]);
  const method = schema.method(`${params.service}/${params.method}`);
  if (!method) {
    return emptyMethod(params);
  }
  setTitle(method.name);
  return h(
    "div.explore-layout",
    null,
    h("nav.method-nav", { "aria-label": "Methods" }, methodLinks(schema, method.path)),
    h(
      "div.method-page",
      null,
      documentation(schema, method),
      method.kind === "client_stream"
        ? notCallable(method)
        : workbench(schema, method, { server, given: callById(query.get("call"))?.request, signal }),
    ),
  );
}

function emptyMethod({ service, method }) {
  return h(
    "div.empty",
    null,
    icon("search"),
    h("h1", null, "There is no such method"),
    h("p", null, `This server does not have ${service}/${method}.`),
    h("p", null, h("a.button", { href: "#/explore" }, "See all methods")),
  );
}

/** What the server says of itself, which stays the same while it runs. */
const serverInfo = once(() => fetchJson("server.json"));

function documentation(schema, method) {
  return [
    pageHeader({
      title: method.name,
      back: { href: "#/explore", label: method.service },
      actions: [
        methodBadges(method),
        method.permission &&
          h(
            "span.badge",
            { title: "The permission that it needs, if the server has a policy" },
            icon("lock"),
            method.permission,
          ),
      ],
    }),
    h("div.method-doc", null, prose(method.doc)),
    method.errors.length > 0 && errors(schema, method),
  ];
}

function errors(schema, method) {
  const rows = method.errors.map(([code, reason]) =>
    h(
      "div",
      null,
      h("dt", null, h("code", null, reason)),
      h("dd", null, badge(code, "neutral"), " ", inline(schema.reason(reason)?.doc ?? "")),
    ),
  );
  return h(
    "details.more",
    null,
    h("summary", null, `${method.errors.length} errors that it can return`),
    h("dl.error-list", null, rows),
  );
}

function notCallable(method) {
  return card(
    { title: "Request" },
    emptyState({
      title: "A browser cannot call it",
      text: "It takes a stream of requests, which HTTP/1.1 has no form for. Use the Python client, or a command.",
    }),
    method.name === "ImportUsers" && h("pre.json", { tabindex: 0 }, "commercectl import-users users.csv"),
  );
}

function workbench(schema, method, { server, given, signal }) {
  let calling = null;
  signal.addEventListener("abort", () => calling?.abort());
  const result = h("div.response", { "aria-busy": "false" }, nothingYet(method));
  const commands = h("div", null);
  const callButton = button({ label: "Call", icon: "play", kind: "primary", onclick: () => run() });
  const editor = requestEditor(schema, method, { given, onChange: () => showCommands(), onSubmit: () => run() });

  async function run() {
    if (calling || !editor.validate()) {
      return;
    }
    const request = editor.get();
    calling = new AbortController();
    // Not `disabled`, which would take the focus away.
    callButton.setAttribute("aria-disabled", "true");
    result.setAttribute("aria-busy", "true");
    if (ONE_COLUMN.matches) {
      // Otherwise, the response would come where the user does not see it.
      result.closest(".card").scrollIntoView();
    }
    try {
      await (method.kind === "server_stream" ? runStream : runUnary)(request, calling);
    } finally {
      calling = null;
      callButton.removeAttribute("aria-disabled");
      result.setAttribute("aria-busy", "false");
    }
  }

  async function runUnary(request, controller) {
    replace(
      result,
      running(() => controller.abort()),
    );
    const started = performance.now();
    try {
      const response = await call(method.path, request, { signal: controller.signal });
      replace(result, succeeded(response, infoOf(response)));
      finished(request, started, "OK");
    } catch (error) {
      if (controller.signal.aborted) {
        const unknown = method.reads ? "" : " It may have changed something nevertheless; the same request id tells.";
        replace(result, notice("warn", `The call was cancelled.${unknown}`));
        finished(request, started, "CANCELLED");
        return;
      }
      showFailure(error);
      finished(request, started, error.code ?? "FAILED", error.reason);
    }
  }

  async function runStream(request, controller) {
    const shown = streaming(() => controller.abort());
    replace(result, shown.element);
    const started = performance.now();
    try {
      for await (const response of stream(method.path, request, { signal: controller.signal, onOpen: shown.open })) {
        shown.add(response);
        if (shown.count() >= MOST_RESPONSES) {
          shown.end("full");
          finished(request, started, "STOPPED");
          return;
        }
      }
      shown.end("ended");
      finished(request, started, "OK");
    } catch (error) {
      const isStopped = controller.signal.aborted;
      shown.end(isStopped ? "stopped" : error);
      isStopped || editor.showProblems(error.violations ?? []);
      finished(request, started, isStopped ? "STOPPED" : (error.code ?? "FAILED"), error.reason);
    }
  }

  function showFailure(error) {
    replace(result, failed(error));
    editor.showProblems(error.violations ?? []);
  }

  function finished(request, started, code, reason = "") {
    const ms = performance.now() - started;
    if (!signal.aborted) {
      announce(`${method.name}: ${code === "OK" ? "OK" : `${code} ${reason}`}`);
    }
    remember(schema, method, request, { ms, code, reason });
  }

  let chosen = "curl";
  function showCommands() {
    const request = editor.get();
    if (request === null) {
      return;
    }
    const base = new URL("..", new URL(".", location.href.split("#")[0]));
    const all = snippets({ schema, method, request, server, base, credentials: credentials() });
    replace(
      commands,
      tabs({
        label: "Tool",
        selected: all.some(({ id }) => id === chosen) ? chosen : all[0].id,
        onSelect: (id) => {
          chosen = id;
        },
        tabs: all.map(({ id, label, text, note }) => ({
          id,
          label,
          content: () => [
            h(
              "div.snippet",
              null,
              h("pre", { tabindex: 0, "data-snippet": id }, text),
              copyButton(text, { label: `Copy for ${label}`, hideLabel: true }),
            ),
            note && h("p.hint", null, note),
          ],
        })),
      }),
    );
  }
  onCredentials(showCommands, signal);
  showCommands();

  return h(
    "div.workbench",
    null,
    card(
      { title: "Request", class: "request-card" },
      editor.element,
      h(
        "footer.call-bar",
        null,
        callButton,
        h("span.hint", null, h("kbd", null, "Ctrl"), " ", h("kbd", null, "Enter")),
      ),
    ),
    h(
      "div.call-results",
      null,
      card({ title: "Response", class: "response-card" }, result),
      card({ title: "The same call elsewhere", class: "snippet-card" }, commands),
    ),
  );
}
