/**
 * What is known of the services: methods, messages, enums and error reasons with their comments and rules.
 *
 * The server's release generates it from the protos (clients/console/generate.py), so a new method appears by itself.
 *
 * A field has: `name`, `json` (its name in JSON), `doc`, `type` (`string`, `int32`, `enum`, `message`, …), `ref` (the full
 * name of its enum or message), `label` (`repeated` or `map`; neither if absent), `key` (the type of a map's keys), `oneof`,
 * `presence` (if it is `optional`), `required`, `output` (only the server sets it), `identifier`, `immutable`, `secret`,
 * `permission` (needed to set it), and `rules`.
 */

import { fetchJson, once } from "./documents.js";

/** Load the schema; later calls return the same. */
export const loadSchema = once(async () => new Schema(await fetchJson("schema.json")));

export class Schema {
  constructor(data) {
    this.services = data.services;
    this.messages = data.messages;
    this.enums = data.enums;
    this.reasons = data.reasons;
    this.methods = new Map();
    for (const service of data.services) {
      for (const method of service.methods) {
        method.service = service.name;
        method.path = `${service.name}/${method.name}`;
        this.methods.set(method.path, method);
      }
    }
  }

  /** Return a method by its path (`commerce.users.v1.UserService/GetUser`); undefined if there is none. */
  method(path) {
    return this.methods.get(path);
  }

  /** Return a message by its full name. */
  message(name) {
    return this.messages[name];
  }

  /** Return the names of an enum's values. */
  enumValues(name) {
    return this.enums[name].values.map(([value]) => value);
  }

  /** Return `{code, doc}` of an error reason; undefined if this release does not know it. */
  reason(name) {
    return Object.hasOwn(this.reasons, name) ? this.reasons[name] : undefined;
  }
}

/**
 * Return the fields of a message that a caller can set.
 *
 * @param {object} message
 * @param {"create" | "update"} [use] - what the request does with it, if it is a resource: the server gives a new one its
 *   id and etag; an update names one by its id, sets only what can change, and leaves out what stays as it is.
 */
export function settableFields(message, use) {
  const fields = message.fields.filter((field) => !field.output);
  switch (use) {
    case "create":
      return fields.filter((field) => !field.identifier && field.name !== "etag");
    case "update":
      return fields
        .filter((field) => !field.immutable)
        .map((field) => ({ ...field, required: Boolean(field.identifier) }));
    default:
      return fields;
  }
}

/** Return the last part of a full name: `Order` of `commerce.orders.v1.Order`. */
export function shortName(fullName) {
  return fullName.slice(fullName.lastIndexOf(".") + 1);
}
