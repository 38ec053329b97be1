/** What can be done with a user in each state: the server's rules, so that nothing is offered in vain. */

import { anyOf, plainName } from "./order_actions.js";

export const USER_STATES = ["ACTIVE", "INACTIVE", "DELETED"];

/** Return the state of a user, for example `ACTIVE`. */
export function stateOf(user) {
  return plainName(user.state, "USER_STATE_") || "UNSPECIFIED";
}

const NOT_DELETED = ["ACTIVE", "INACTIVE"];

/** The actions; `from` are the states that allow them, `can` completes the sentence of a refusal. */
const ACTIONS = [
  { name: "create-order", label: "New order", can: "place orders", from: ["ACTIVE"] },
  { name: "edit", label: "Edit", can: "be edited", from: NOT_DELETED },
  { name: "password", label: "Set password", can: "get a password", from: NOT_DELETED },
  { name: "grant", label: "Grant credit", can: "get credit", from: NOT_DELETED },
  { name: "transfer-credit", label: "Transfer credit", can: "transfer credit", from: NOT_DELETED },
  { name: "transfer-orders", label: "Transfer orders", can: "transfer orders", from: USER_STATES },
  { name: "deactivate", label: "Deactivate", can: "be deactivated", from: ["ACTIVE"] },
  { name: "reactivate", label: "Reactivate", can: "be reactivated", from: ["INACTIVE"] },
  { name: "delete", label: "Delete", can: "be deleted", from: NOT_DELETED },
  { name: "undelete", label: "Undelete", can: "be undeleted", from: ["DELETED"] },
  { name: "purge", label: "Purge", can: "be purged", from: USER_STATES },
];

/**
 * Return all actions of users, each with why this user does not allow it.
 *
 * @param {object} user a user in JSON
 * @returns {{name: string, label: string, refusal: string}[]} `refusal` is empty if the action is allowed
 */
export function userActions(user) {
  const state = stateOf(user);
  return ACTIONS.map(({ name, label, can, from }) => ({
    name,
    label,
    refusal: from.includes(state) ? "" : `Only ${anyOf(from)} users can ${can}. This one is ${state}.`,
  }));
}
