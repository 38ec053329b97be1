/** Times in the time zone of the browser, with UTC beside them. */

import { h } from "./dom.js";

const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const UNITS = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** Return whether a text is a time as the services return it (RFC 3339). */
export function isTime(text) {
  return typeof text === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(text);
}

/** Return a time for people, in local time; `style` is `short`, `exact` (with seconds) or `time` (of the day only). */
export function formatTime(iso, style = "short") {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) {
    return String(iso);
  }
  return { short: DATE_TIME, exact: EXACT, time: TIME }[style].format(date);
}

/** Return how long ago a time was, or in how long it will be: `5 minutes ago`. */
function formatRelative(iso, now = Date.now()) {
  const seconds = (new Date(iso).getTime() - now) / 1000;
  const [unit, length] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  return RELATIVE.format(Math.round(seconds / length), unit);
}

/** Return an element with a local time, whose title is the same in UTC. */
export function timeElement(iso, style = "short") {
  if (!iso) {
    return h("span.quiet", null, "–");
  }
  const text = style === "relative" ? formatRelative(iso) : formatTime(iso, style);
  const utc = iso.replace("T", " ").replace("Z", " UTC");
  return h("time", { datetime: iso, title: style === "relative" ? `${formatTime(iso, "exact")} (${utc})` : utc }, text);
}

/** Return the value of an input of type `datetime-local` as RFC 3339; empty for an empty or invalid one. */
export function fromLocalInput(value) {
  const date = new Date(value);
  return value && !Number.isNaN(date.getTime()) ? date.toISOString() : "";
}

/** Return a time as the value of an input of type `datetime-local`. */
export function toLocalInput(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) {
    return "";
  }
  const pad = (number, length = 2) => String(number).padStart(length, "0");
  const day = `${pad(date.getFullYear(), 4)}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  const seconds = date.getSeconds() ? `:${pad(date.getSeconds())}` : "";
  return `${day}T${pad(date.getHours())}:${pad(date.getMinutes())}${seconds}`;
}

/** Return the name of the browser's time zone. */
export function timeZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}
