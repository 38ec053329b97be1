/** What a dialog needs to know about each action of users; `actions_of_orders.js` describes the parts of an action. */

import { counted } from "../lib/words.js";
import { createOrder } from "./actions_of_orders.js";
import { balanceEffect, userEffects } from "./effects.js";
import { orders, users } from "./methods.js";

const DESCRIPTION = {
  name: "description",
  path: "description",
  kind: "text",
  label: "Description",
  hint: "Shown in the ledger, at most 200 characters.",
};
const PASSWORD = {
  name: "password",
  path: "password",
  kind: "password",
  label: "Password",
  hint: "8 to 128 characters.",
  required: true,
};

function profileFields(user) {
  return [
    { name: "email", path: "user.email", kind: "text", label: "E-mail", value: user?.email ?? "", required: true },
    {
      name: "username",
      path: "user.username",
      kind: "text",
      label: "Username",
      hint: "3 to 50 characters: a–z, 0–9, underscore, dot and hyphen.",
      value: user?.username ?? "",
      required: true,
    },
    { name: "fullName", path: "user.full_name", kind: "text", label: "Full name", value: user?.fullName ?? "" },
    { name: "bio", path: "user.profile.bio", kind: "textarea", label: "Bio", value: user?.profile?.bio ?? "" },
    {
      name: "avatarUrl",
      path: "user.profile.avatar_url",
      kind: "text",
      label: "Picture",
      hint: "The URL of a picture. This page does not load it.",
      value: user?.profile?.avatarUrl ?? "",
    },
    {
      name: "superuser",
      path: "user.superuser",
      kind: "checkbox",
      label: "Superuser",
      hint: "The services only store this flag; callers decide what it permits.",
      value: Boolean(user?.superuser),
    },
  ];
}

function userOf({ email, username, fullName, bio, avatarUrl, superuser }) {
  return { email, username, fullName, superuser, profile: { bio, avatarUrl } };
}

/** Return the action that creates a user. */
export function createUser() {
  return {
    method: users("CreateUser"),
    title: "New user",
    submit: "Create user",
    fields: [
      ...profileFields(null),
      PASSWORD,
      {
        name: "welcomeCredit",
        path: "welcome_credit",
        kind: "money",
        label: "Welcome credit",
        hint: "Granted together with the user. Empty for none.",
      },
    ],
    request: ({ password, welcomeCredit, ...fields }) => ({
      // Without the permission to set it, also `false` would be refused.
      user: fields.superuser ? userOf(fields) : { ...userOf(fields), superuser: undefined },
      password,
      ...(welcomeCredit && { welcomeCredit }),
    }),
    effects: (response, { welcomeCredit }) => [
      `The ACTIVE user ${response.user.username} with the address ${response.user.email}`,
      ...(welcomeCredit ? [balanceEffect(response.user.username, null, { available: welcomeCredit })] : []),
    ],
    warning: "",
    done: (response) => `${response.user.username} is created`,
  };
}

function transition(user, { name, submit, done, effects = () => [], fields = [], warning = "", ...more }) {
  return {
    method: users(`${name}User`),
    title: `${submit}: ${user.username}`,
    submit,
    fields,
    request: (values) => ({ id: user.id, etag: user.etag, ...values }),
    effects: (response) => [...(response.user ? userEffects(user, response.user) : []), ...effects(response)],
    warning,
    done: `${user.username} is ${done}`,
    ...more,
  };
}

const MASK_PATHS = [
  ["email", "email", (user) => user.email],
  ["username", "username", (user) => user.username],
  ["fullName", "fullName", (user) => user.fullName],
  ["bio", "profile.bio", (user) => user.profile?.bio],
  ["avatarUrl", "profile.avatarUrl", (user) => user.profile?.avatarUrl],
  ["superuser", "superuser", (user) => user.superuser],
];

function changedPaths(user, values) {
  return MASK_PATHS.filter(([name, , old]) => (old(user) || "") !== (values[name] || "")).map(([, path]) => path);
}

function balanceOf(balances, code) {
  return balances?.find((balance) => (balance.available ?? balance.held)?.currencyCode === code);
}

const USER_ACTIONS = {
  "create-order": (user) => createOrder(user),
  edit: (user) => ({
    method: users("UpdateUser"),
    title: `Edit ${user.username}`,
    submit: "Save user",
    fields: profileFields(user),
    changed: (values) => changedPaths(user, values),
    request: (values, mask) => ({
      user: { id: user.id, etag: user.etag, ...userOf(values) },
      updateMask: mask.join(","),
    }),
    effects: (response) => userEffects(user, response.user),
    warning: "",
    done: `${user.username} is saved`,
  }),
  password: (user) => ({
    method: users("SetPassword"),
    title: `Set the password of ${user.username}`,
    submit: "Set password",
    fields: [PASSWORD],
    request: ({ password }) => ({ id: user.id, etag: user.etag, password }),
    effects: () => ["The password is replaced. The old one no longer signs in."],
    warning: "",
    done: `The password of ${user.username} is set`,
  }),
  grant: (user, balances) => ({
    method: users("GrantCredit"),
    title: `Grant credit to ${user.username}`,
    submit: "Grant credit",
    fields: [{ name: "amount", path: "amount", kind: "money", label: "Amount", required: true }, DESCRIPTION],
    request: (values) => ({ userId: user.id, ...values }),
    effects: (response, { amount }) => [
      balanceEffect(user.username, balanceOf(balances, amount.currencyCode), response.balance),
    ],
    warning: "",
    done: `${user.username} has the credit`,
  }),
  "transfer-credit": (user, balances) => ({
    method: users("TransferCredit"),
    title: `Transfer credit of ${user.username}`,
    submit: "Transfer credit",
    fields: [
      { name: "receiver", path: "to_user_id", kind: "user", label: "To user", required: true },
      { name: "amount", path: "amount", kind: "money", label: "Amount", required: true },
      DESCRIPTION,
    ],
    request: ({ receiver, ...values }) => ({ fromUserId: user.id, toUserId: receiver.id, ...values }),
    effects: (response, { receiver, amount }) => [
      balanceEffect(user.username, balanceOf(balances, amount.currencyCode), response.fromBalance),
      `Credit of ${receiver.username} grows by as much`,
    ],
    warning: "",
    done: "The credit is transferred",
  }),
  "transfer-orders": (user) => ({
    method: orders("TransferOrders"),
    title: `Transfer all orders of ${user.username}`,
    submit: "Transfer orders",
    fields: [
      { name: "receiver", path: "to_user_id", kind: "user", label: "To user", hint: "An ACTIVE user.", required: true },
    ],
    request: ({ receiver }) => ({ fromUserId: user.id, toUserId: receiver.id }),
    effects: (response, { receiver }) => [
      `${counted(response.transferredCount ?? 0, "order")} of ${user.username} will belong to ${receiver.username}.`,
      `${user.username} remains the payer of those that are paid with credit.`,
    ],
    warning: "Transferring back would move all orders that the receiver has then.",
    done: (response) => `${counted(response.transferredCount ?? 0, "order")} transferred`,
  }),
  deactivate: (user) =>
    transition(user, {
      name: "Deactivate",
      submit: "Deactivate",
      done: "deactivated",
      effects: () => ["The user can no longer sign in or place orders, until it is reactivated."],
    }),
  reactivate: (user) =>
    transition(user, {
      name: "Reactivate",
      submit: "Reactivate",
      done: "reactivated",
      effects: () => ["The user can sign in and place orders again."],
    }),
  delete: (user) =>
    transition(user, {
      name: "Delete",
      submit: "Delete",
      done: "deleted",
      effects: () => ["For 30 days the user can be undeleted; then it may be erased."],
    }),
  undelete: (user) => transition(user, { name: "Undelete", submit: "Undelete", done: "restored" }),
  purge: (user) =>
    transition(user, {
      name: "Purge",
      submit: "Purge",
      done: "erased",
      fields: [
        {
          name: "force",
          path: "force",
          kind: "checkbox",
          label: "Even with open orders or credit",
          hint: "Without it, a user with open orders or credit is not purged.",
        },
      ],
      effects: (response) => [
        `The user is erased, with ${counted(response.purgedOrderCount ?? 0, "order")}, their events, its ledger and its notes.`,
      ],
      warning: "Nothing of it can be restored.",
      confirmWord: user.username,
    }),
};

/**
 * Return the action of a user by its name in `userActions`.
 *
 * @param {string} name
 * @param {object} user
 * @param {object[]} [balances] the user's credit, if it is known
 */
export function userAction(name, user, balances) {
  return USER_ACTIONS[name]?.(user, balances) ?? null;
}
