/** Events in words: a sentence for each, and the changed values. */

import { plainName } from "./order_actions.js";

const ORDER_TITLES = {
  CREATED: "Order placed",
  UPDATED: "Order changed",
  CONFIRMED: "Order confirmed",
  PROCESSING: "Processing begun",
  SHIPPED: "Order shipped",
  DELIVERED: "Order delivered",
  CANCELLED: "Order cancelled",
  TRANSFERRED: "Order moved to another user",
  CREDIT_EXPIRED: "Hold expired, credit returned",
  NOTE_CREATED: "Note written",
  NOTE_UPDATED: "Note changed",
  NOTE_PUBLISHED: "Note published",
  NOTE_DELETED: "Note deleted",
};

const USER_TITLES = {
  CREATED: "User created",
  UPDATED: "User changed",
  DEACTIVATED: "User deactivated",
  REACTIVATED: "User reactivated",
  DELETED: "User deleted",
  UNDELETED: "User restored",
  PASSWORD_CHANGED: "Password replaced",
  PURGED: "User erased",
};

export const ORDER_EVENT_TYPES = Object.keys(ORDER_TITLES);
export const USER_EVENT_TYPES = Object.keys(USER_TITLES);

const FIELD_LABELS = {
  status: "Status",
  state: "State",
  items: "Items",
  total_amount: "Total",
  external_ref: "External reference",
  metadata: "Metadata",
  tags: "Tags",
  tracking_number: "Tracking number",
  cancel_reason: "Reason",
  user_id: "User",
  "credit.state": "Credit",
  email: "E-mail",
  username: "Username",
  full_name: "Full name",
  superuser: "Superuser",
  bio: "Bio",
  avatar_url: "Picture",
  "profile.bio": "Bio",
  "profile.avatar_url": "Picture",
};

/** Return the label of a field by its path in the proto. */
export function fieldLabel(path) {
  return FIELD_LABELS[path] ?? path;
}

/** Return what happened to an order. */
export function orderEventTitle(event) {
  return title(event, "ORDER_EVENT_TYPE_", ORDER_TITLES);
}

/** Return what happened to a user. */
export function userEventTitle(event) {
  return title(event, "USER_EVENT_TYPE_", USER_TITLES);
}

function title(event, prefix, titles) {
  const type = plainName(event.type, prefix);
  // A newer server may send types that this page does not know.
  return titles[type] ?? (type && type !== "UNSPECIFIED" ? `Event ${type}` : "Event of an unknown type");
}

/**
 * Return the changes of an event in words.
 *
 * @param {object} event an OrderEvent or UserEvent in JSON
 * @returns {{field: string, text: string}[]} the label of each changed field, and its values: `PENDING → CONFIRMED`
 */
export function changesInWords(event) {
  return (
    (event.changes ?? [])
      // It only tells which note the event is about.
      .filter(({ field }) => field !== "note_id")
      .map(({ field, oldValue, newValue }) => ({
        field: fieldLabel(field),
        text: valuesInWords(oldValue ?? "", newValue ?? ""),
      }))
  );
}

function valuesInWords(oldValue, newValue) {
  // Long and personal values are not recorded.
  if (!oldValue && !newValue) return "changed";
  if (!oldValue) return newValue;
  return `${oldValue} → ${newValue || "none"}`;
}

/** Return who caused an event: the identity of the caller, and the user for whom it acted. */
export function actorInWords(event) {
  const actor = event.actor || "unknown caller";
  return event.onBehalfOf ? `${actor} for user ${event.onBehalfOf}` : actor;
}
