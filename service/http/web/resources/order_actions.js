/** What can be done with an order in each status: the server's state machine, so that nothing is offered in vain. */

/** The name of a status or state without the prefix of its enum, for example `PENDING`. */
export function plainName(value, prefix) {
  return value?.startsWith(prefix) ? value.slice(prefix.length) : (value ?? "");
}

/** Return the status of an order, for example `PENDING`. */
export function statusOf(order) {
  return plainName(order.status, "ORDER_STATUS_") || "UNSPECIFIED";
}

export const ORDER_STATUSES = ["PENDING", "CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED", "CANCELLED"];

const IN_ANY_STATUS = ORDER_STATUSES;

/** The actions in the order in which an order meets them; `from` are the statuses that allow them. */
const ACTIONS = [
  { name: "confirm", label: "Confirm", done: "confirmed", from: ["PENDING"] },
  { name: "process", label: "Process", done: "processed", from: ["CONFIRMED"] },
  { name: "ship", label: "Ship", done: "shipped", from: ["PROCESSING"] },
  { name: "deliver", label: "Deliver", done: "delivered", from: ["SHIPPED"] },
  { name: "edit", label: "Edit", done: "edited", from: ["PENDING"] },
  { name: "tag", label: "Tags", done: "tagged", from: IN_ANY_STATUS },
  { name: "note", label: "Add note", done: "annotated", from: IN_ANY_STATUS },
  { name: "cancel", label: "Cancel order", done: "cancelled", from: ["PENDING", "CONFIRMED", "PROCESSING"] },
];

/**
 * Return all actions of orders, each with why this order does not allow it.
 *
 * @param {object} order an order in JSON
 * @returns {{name: string, label: string, refusal: string}[]} `refusal` is empty if the action is allowed
 */
export function orderActions(order) {
  const status = statusOf(order);
  return ACTIONS.map(({ name, label, done, from }) => ({
    name,
    label,
    refusal: from.includes(status) ? "" : `Only ${anyOf(from)} orders can be ${done}. This one is ${status}.`,
  }));
}

/** Return the note actions, each with why this note does not allow it. */
export function noteActions(note) {
  const isDraft = note.state === "ORDER_NOTE_STATE_DRAFT";
  return [
    { name: "publish-note", label: "Publish", refusal: isDraft ? "" : "The note is already published." },
    { name: "edit-note", label: "Edit", refusal: "" },
    { name: "delete-note", label: "Delete", refusal: "" },
  ];
}

/** Join names: `A`, `A or B`, `A, B or C`. */
export function anyOf(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}
