/** What came back: nothing yet, a response, a failure, or a stream of responses. */

import { h, replace } from "../lib/dom.js";
import { jsonTree } from "../lib/json_tree.js";
import { formatTime } from "../lib/time.js";
import { badge, button, copyButton, emptyState, errorPanel, loading, tabs } from "../lib/ui.js";

/** A stream is stopped after so many responses, so that the page does not grow without end. */
export const MOST_RESPONSES = 1000;

/** Return the content for a method that has not been called. */
export function nothingYet(method) {
  const text = method.reads ? "It changes nothing, so you can try freely." : "It changes data on this server.";
  return emptyState({ icon: "play", title: "Not called yet", text });
}

/** Return the content while a call runs. */
export function running(cancel) {
  return h(
    "div.running",
    null,
    loading("Waiting for the response …"),
    button({ label: "Cancel", icon: "stop", onclick: cancel }),
  );
}

/** Return a response with how long it took. */
export function succeeded(response, info) {
  return [status(badge("OK", "good"), info), treeAndJson(response)];
}

/** Return a failure in words, with its status as it came. */
export function failed(error) {
  const panel = errorPanel(error, { level: 3 });
  const isCall = error.name === "CallError";
  return [
    isCall && error.ms > 0 && status(badge("failed", "bad"), { ms: error.ms }),
    panel,
    isCall &&
      error.details.length > 0 &&
      h("details.more", null, h("summary", null, "The status as it came"), treeAndJson(error.status)),
  ];
}

function status(state, { ms, requestId, bytes }) {
  return h(
    "div.status-line",
    null,
    state,
    ms > 0 && h("span.number", null, `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`),
    bytes !== undefined && h("span", null, size(bytes)),
    requestId &&
      h(
        "span.request-id",
        { title: "x-request-id: the log of the server has the call under it" },
        h("code", null, requestId),
      ),
  );
}

function size(bytes) {
  return bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} kB`;
}

function treeAndJson(value) {
  const text = JSON.stringify(value, null, 2);
  return h(
    "div.tree-and-json",
    null,
    copyButton(text, { label: "Copy JSON", kind: "quiet small" }),
    tabs({
      label: "Form of the response",
      tabs: [
        { id: "tree", label: "Tree", content: () => jsonTree(value) },
        { id: "json", label: "JSON", content: () => h("pre.json", { tabindex: 0 }, text) },
      ],
    }),
  );
}

/**
 * A stream that is shown response by response.
 *
 * @param {() => void} stop - ends the call.
 * @returns {{element: Node, add: (response: object) => void, end: (state: "ended" | "stopped" | "full" | Error) => void,
 *   open: (info: object) => void, count: () => number}}
 */
export function streaming(stop) {
  const started = performance.now();
  const responses = [];
  const state = h("span", null, badge("connecting", "neutral"));
  const counter = h("span.number", null, "0 responses");
  const requestId = h("span.request-id", null);
  const list = h("ol.stream", null);
  const stopButton = button({ label: "Stop", icon: "stop", onclick: stop });
  const copying = copyButton(() => JSON.stringify(responses, null, 2), { label: "Copy JSON", kind: "quiet small" });
  const ending = h("div", null);
  const element = h(
    "div.streaming",
    null,
    h("div.status-line", null, state, counter, requestId, copying, stopButton),
    ending,
    list,
  );
  return {
    element,
    count: () => responses.length,
    open: (info) => {
      replace(state, badge("open", "good"));
      info.requestId && replace(requestId, h("code", null, info.requestId));
    },
    add: (response) => {
      responses.push(response);
      counter.textContent = responses.length === 1 ? "1 response" : `${responses.length} responses`;
      list.prepend(item(response, responses.length));
    },
    end: (how) => {
      stopButton.remove();
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      const words = { ended: ["ended", "neutral"], stopped: ["stopped", "neutral"], full: ["stopped", "warn"] }[
        how
      ] ?? ["failed", "bad"];
      replace(state, badge(`${words[0]} after ${seconds} s`, words[1]));
      if (how instanceof Error) {
        replace(ending, failed(how));
      } else if (how === "full") {
        replace(
          ending,
          h(
            "p.hint",
            null,
            `Stopped after ${MOST_RESPONSES} responses. For all of them, use one of the commands below.`,
          ),
        );
      } else if (responses.length === 0) {
        replace(
          ending,
          emptyState({
            title: "No responses",
            text: how === "ended" ? "The stream ended without any." : "It was stopped before any came.",
          }),
        );
      }
    },
  };
}

function item(response, number) {
  const body = h("div", null);
  const text = JSON.stringify(response);
  const details = h(
    "details",
    null,
    h(
      "summary",
      null,
      h("span.number", null, `#${number}`),
      " ",
      h("span.quiet", null, formatTime(new Date().toISOString(), "time")),
      " ",
      h("code", null, text.slice(0, 200)),
    ),
    body,
  );
  details.addEventListener("toggle", () => {
    if (details.open && !body.hasChildNodes()) {
      body.append(jsonTree(response));
    }
  });
  return h("li", null, details);
}
