/** What an action will do, in words: from the resource as it is, and from the response to `validate_only`. */

import { formatMoney } from "../lib/money.js";
import { counted } from "../lib/words.js";
import { nanosOf } from "./amounts.js";
import { fieldLabel } from "./event_words.js";
import { plainName, statusOf } from "./order_actions.js";
import { stateOf } from "./user_actions.js";

const NOTHING = "Nothing changes: all values are as they are.";

/** Return what a transition or change of an order will do. */
export function orderEffects(before, after) {
  const lines = [];
  if (statusOf(before) !== statusOf(after)) lines.push(`Status: ${statusOf(before)} → ${statusOf(after)}`);
  if (!sameItems(before, after)) lines.push(itemsLine(before, after));
  const [oldTotal, newTotal] = [formatMoney(before.totalAmount), formatMoney(after.totalAmount)];
  if (oldTotal !== newTotal) lines.push(`Total: ${oldTotal} → ${newTotal}`);
  lines.push(...textChange("external_ref", before.externalRef, after.externalRef));
  lines.push(...metadataLines(before.metadata ?? {}, after.metadata ?? {}));
  lines.push(...textChange("tags", (before.tags ?? []).join(", "), (after.tags ?? []).join(", ")));
  lines.push(...textChange("tracking_number", before.trackingNumber, after.trackingNumber));
  lines.push(...textChange("cancel_reason", before.cancelReason, after.cancelReason));
  lines.push(...creditLines(before, after));
  return lines.length ? lines : [NOTHING];
}

/** Return what CreateOrder will do. */
export function newOrderEffects(order, buyer) {
  const items = counted(order.items?.length ?? 0, "item");
  const lines = [`A PENDING order of ${buyer}: ${items}, total ${formatMoney(order.totalAmount)}`];
  if (order.credit)
    lines.push(`${formatMoney(order.totalAmount)} of the user's credit is held until the order is confirmed`);
  return lines;
}

function creditLines(before, after) {
  const [from, to] = [creditState(before), creditState(after)];
  const amount = formatMoney(after.totalAmount);
  if (from === "HELD" && to === "HELD") {
    const isEqual = nanosOf(before.totalAmount) === nanosOf(after.totalAmount);
    return isEqual ? [] : [`Held credit: ${formatMoney(before.totalAmount)} → ${amount}`];
  }
  if (from === to) return [];
  const sentences = {
    POSTED:
      from === "EXPIRED"
        ? `${amount} of available credit is spent, because the hold has expired`
        : `${amount} of held credit is spent`,
    VOIDED: `${amount} of held credit is returned to the user`,
    REVERSED: `${amount} of spent credit is returned to the user`,
    EXPIRED: `${amount} of held credit is returned, because the hold has expired`,
  };
  return [sentences[to] ?? `Credit: ${from || "none"} → ${to || "none"}`];
}

/** Return the state of the credit that pays for an order, for example `HELD`; empty without credit. */
export function creditState(order) {
  return plainName(order.credit?.state, "ORDER_CREDIT_STATE_");
}

/** Return whether two orders have the same items, apart from what is computed from them. */
export function sameItems(before, after) {
  const key = ({ productId, name, quantity, unitPrice }) =>
    JSON.stringify([productId, name, quantity, formatMoney(unitPrice)]);
  const [left, right] = [(before.items ?? []).map(key), (after.items ?? []).map(key)];
  return left.length === right.length && left.every((item, index) => item === right[index]);
}

function itemsLine(before, after) {
  const [from, to] = [before.items?.length ?? 0, after.items?.length ?? 0];
  return from === to ? `Items: all ${to} are replaced` : `Items: ${from} → ${to}`;
}

function textChange(path, before = "", after = "") {
  return before === after ? [] : [`${fieldLabel(path)}: ${before ? `${before} → ` : ""}${after || "none"}`];
}

function metadataLines(before, after) {
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
  return keys.flatMap((key) => {
    if (!(key in after)) return [`Metadata ${key}: ${before[key]} is removed`];
    if (!(key in before)) return [`Metadata ${key}: ${after[key]} is added`];
    return before[key] === after[key] ? [] : [`Metadata ${key}: ${before[key]} → ${after[key]}`];
  });
}

const USER_FIELDS = [
  ["email", (user) => user.email],
  ["username", (user) => user.username],
  ["full_name", (user) => user.fullName],
  ["bio", (user) => user.profile?.bio],
  ["avatar_url", (user) => user.profile?.avatarUrl],
];

/** Return what a change of a user will do. */
export function userEffects(before, after) {
  const lines = [];
  if (stateOf(before) !== stateOf(after)) lines.push(`State: ${stateOf(before)} → ${stateOf(after)}`);
  for (const [path, value] of USER_FIELDS) lines.push(...textChange(path, value(before), value(after)));
  if (Boolean(before.superuser) !== Boolean(after.superuser)) {
    lines.push(after.superuser ? "Becomes a superuser" : "Is no longer a superuser");
  }
  return lines.length ? lines : [NOTHING];
}

/** Return what a change of credit will do to a balance. */
export function balanceEffect(who, before, after) {
  const code = after.available?.currencyCode ?? after.held?.currencyCode ?? "";
  const old = before?.available ?? { currencyCode: code };
  return `Available credit of ${who}: ${formatMoney(old)} → ${formatMoney(after.available ?? { currencyCode: code })}`;
}
