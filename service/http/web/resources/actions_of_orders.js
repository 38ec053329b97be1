/**
 * What a dialog needs to know about each action of orders and notes.
 *
 * An action has: `method`; `title`; `submit`, the label of the button that does it; `fields`; `request`, which makes the
 * request from the values of the fields, without `requestId` and `validateOnly`; `effects`, what the response to
 * `validate_only` means in words; `warning`, set if it cannot be undone; `done`, what to say afterwards. If it changes
 * only some fields, `changed` returns from the values which ones, for `request`.
 */

import { formatMoney } from "../lib/money.js";
import { creditState, newOrderEffects, orderEffects, sameItems } from "./effects.js";
import { orders } from "./methods.js";
import { statusOf } from "./order_actions.js";

const TAGS_HINT = "Separated by commas. They are stored in lower case, with hyphens for spaces.";

/** Return an action that only changes the status. */
function transition(order, { name, submit, done, fields = [], warning = "" }) {
  return {
    method: orders(`${name}Order`),
    title: `${submit} ${order.orderNumber}`,
    submit,
    fields,
    request: (values) => ({ id: order.id, etag: order.etag, ...values }),
    effects: (response) => orderEffects(order, response.order),
    warning,
    done: `${order.orderNumber} is ${done}`,
  };
}

const ORDER_ACTIONS = {
  confirm: (order) => transition(order, { name: "Confirm", submit: "Confirm order", done: "confirmed" }),
  process: (order) => transition(order, { name: "Process", submit: "Process order", done: "being processed" }),
  ship: (order) =>
    transition(order, {
      name: "Ship",
      submit: "Ship order",
      done: "shipped",
      fields: [
        {
          name: "trackingNumber",
          path: "tracking_number",
          kind: "text",
          label: "Tracking number",
          hint: "From the carrier, at most 100 characters.",
          required: true,
        },
      ],
      warning: "A shipped order can no longer be cancelled.",
    }),
  deliver: (order) =>
    transition(order, {
      name: "Deliver",
      submit: "Mark as delivered",
      done: "delivered",
      warning: "DELIVERED is final: nothing leads back.",
    }),
  cancel: (order) =>
    transition(order, {
      name: "Cancel",
      submit: "Cancel order",
      done: "cancelled",
      fields: [
        {
          name: "reason",
          path: "reason",
          kind: "text",
          label: "Reason",
          hint: "Stored with the order, at most 500 characters.",
          required: true,
        },
      ],
      warning: "CANCELLED is final: nothing leads back.",
    }),
  edit: editOrder,
  tag: editTags,
  note: (order) => writeNote(order),
};

/** Return the action of an order by its name in `orderActions`. */
export function orderAction(name, order) {
  return ORDER_ACTIONS[name]?.(order) ?? null;
}

function orderFields(order) {
  return [
    { name: "items", path: "order.items", kind: "items", label: "Items", value: order?.items ?? [], required: true },
    {
      name: "externalRef",
      path: "order.external_ref",
      kind: "text",
      label: "External reference",
      hint: "Your own identifier, unique among the user's orders that are not cancelled.",
      value: order?.externalRef ?? "",
    },
    { name: "metadata", path: "order.metadata", kind: "map", label: "Metadata", value: order?.metadata ?? {} },
  ];
}

/** Return the action that places an order; `user` is chosen already or null. */
export function createOrder(user) {
  return {
    method: orders("CreateOrder"),
    title: "New order",
    submit: "Place order",
    fields: [
      { name: "user", path: "order.user_id", kind: "user", label: "User", value: user, required: true },
      ...orderFields(null),
      {
        name: "payWithCredit",
        path: "pay_with_credit",
        kind: "checkbox",
        label: "Pay with the user's credit",
        hint: "The total is held now, and spent when the order is confirmed.",
      },
    ],
    request: ({ user: buyer, payWithCredit, ...fields }) => ({
      order: { userId: buyer.id, ...fields },
      payWithCredit,
    }),
    effects: (response, { user: buyer }) => newOrderEffects(response.order, buyer.username),
    warning: "",
    done: (response) => `${response.order.orderNumber} is placed`,
  };
}

function editOrder(order) {
  return {
    method: orders("UpdateOrder"),
    title: `Edit ${order.orderNumber}`,
    submit: "Save order",
    fields: orderFields(order),
    changed: (values) => changedFields(order, values),
    request: (values, mask) => ({
      order: { id: order.id, etag: order.etag, ...values },
      updateMask: mask.join(","),
    }),
    effects: (response) => orderEffects(order, response.order),
    warning: "",
    done: `${order.orderNumber} is saved`,
  };
}

function changedFields(order, { items, externalRef, metadata }) {
  const mapKey = (map) => JSON.stringify(Object.entries(map ?? {}).sort());
  return [
    ...(sameItems({ items }, order) ? [] : ["items"]),
    ...(externalRef === (order.externalRef ?? "") ? [] : ["externalRef"]),
    ...(mapKey(metadata) === mapKey(order.metadata) ? [] : ["metadata"]),
  ];
}

function editTags(order) {
  const current = order.tags ?? [];
  return {
    method: orders("AddOrderTags"),
    title: `Add tags to ${order.orderNumber}`,
    submit: "Add tags",
    fields: [{ name: "tags", path: "tags", kind: "tags", label: "New tags", hint: TAGS_HINT, required: true }],
    request: ({ tags }) => ({ id: order.id, etag: order.etag, tags }),
    effects: (response) => orderEffects(order, response.order),
    intro: current.length ? `The order has: ${current.join(", ")}` : "The order has no tags.",
    warning: "",
    done: `${order.orderNumber} is tagged`,
  };
}

/** Return the action that removes one tag. */
export function removeTag(order, tag) {
  return {
    method: orders("RemoveOrderTags"),
    title: `Remove the tag ${tag}`,
    submit: "Remove tag",
    fields: [],
    request: () => ({ id: order.id, etag: order.etag, tags: [tag] }),
    effects: (response) => orderEffects(order, response.order),
    warning: "",
    done: `The tag ${tag} is removed`,
  };
}

const BODY = {
  name: "body",
  path: "note.body",
  kind: "textarea",
  label: "Note",
  hint: "At most 4000 characters.",
  required: true,
};

function writeNote(order) {
  return {
    method: orders("CreateOrderNote"),
    title: `Write a note about ${order.orderNumber}`,
    submit: "Save draft",
    fields: [
      {
        name: "author",
        path: "note.author_id",
        kind: "user",
        label: "Author",
        hint: "An ACTIVE user.",
        required: true,
      },
      BODY,
    ],
    request: ({ author, body }) => ({ note: { orderId: order.id, authorId: author.id, body } }),
    effects: (_response, { author }) => [`A draft by ${author.username}. Publish it to show it to everyone.`],
    warning: "",
    done: "The draft is saved",
  };
}

const NOTE_ACTIONS = {
  "publish-note": (note) => ({
    method: orders("PublishOrderNote"),
    title: "Publish the note",
    submit: "Publish note",
    fields: [],
    request: () => ({ id: note.id, etag: note.etag }),
    effects: () => ["The note is shown to everyone."],
    warning: "A published note cannot become a draft again.",
    done: "The note is published",
  }),
  "edit-note": (note) => ({
    method: orders("UpdateOrderNote"),
    title: "Edit the note",
    submit: "Save note",
    fields: [{ ...BODY, value: note.body }],
    request: ({ body }) => ({ note: { id: note.id, etag: note.etag, body }, updateMask: "body" }),
    effects: (response) =>
      response.note.body === note.body
        ? ["Nothing changes: the text is as it is."]
        : ["The text is replaced. The earlier text is not kept."],
    warning: "",
    done: "The note is saved",
  }),
  "delete-note": (note) => ({
    method: orders("DeleteOrderNote"),
    title: "Delete the note",
    submit: "Delete note",
    fields: [],
    request: () => ({ id: note.id, etag: note.etag }),
    effects: () => [`The ${note.state === "ORDER_NOTE_STATE_DRAFT" ? "draft" : "published note"} is deleted.`],
    warning: "A deleted note cannot be restored.",
    done: "The note is deleted",
  }),
};

/** Return the action of a note by its name in `noteActions`. */
export function noteAction(name, note) {
  return NOTE_ACTIONS[name]?.(note) ?? null;
}

/** Return how an order is paid, in words; empty without credit. */
export function paymentInWords(order) {
  const total = formatMoney(order.totalAmount);
  return (
    {
      HELD: `${total} of credit is held`,
      POSTED: `${total} of credit is spent`,
      VOIDED: `The held ${total} of credit was returned, because the order was cancelled before it was confirmed`,
      REVERSED: `The spent ${total} of credit was returned, because the order was cancelled`,
      EXPIRED:
        statusOf(order) === "PENDING"
          ? "The hold expired, and the credit was returned. Confirming the order spends credit that is available then"
          : "The hold expired, and the credit was returned",
    }[creditState(order)] ?? ""
  );
}
