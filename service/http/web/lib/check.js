/**
 * Checks a request before it is sent: that its JSON is a message of its type, and the rules of its fields that the protos
 * state (buf.validate). The service checks again, and more: this only saves a call.
 *
 * Paths are those of the service's own violations: `order.items[0].name`, with the names of the protos.
 */

import { counted } from "./words.js";

const UUID = /^[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}$/i;
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/i;
const DURATION = /^-?\d+(\.\d{1,9})?s$/;
const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;
const FIELD_MASK = /^(\*|[A-Za-z0-9]+(\.[A-Za-z0-9]+)*(,[A-Za-z0-9]+(\.[A-Za-z0-9]+)*)*)?$/;
const RANGES = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  sint32: [-(2n ** 31n), 2n ** 31n - 1n],
  sfixed32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  fixed32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  sint64: [-(2n ** 63n), 2n ** 63n - 1n],
  sfixed64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  fixed64: [0n, 2n ** 64n - 1n],
};
/** The types of the wrappers (google.protobuf.StringValue), whose JSON is that of the value inside. */
export const WRAPPERS = {
  "google.protobuf.StringValue": "string",
  "google.protobuf.BytesValue": "bytes",
  "google.protobuf.BoolValue": "bool",
  "google.protobuf.DoubleValue": "double",
  "google.protobuf.FloatValue": "float",
  "google.protobuf.Int32Value": "int32",
  "google.protobuf.Int64Value": "int64",
  "google.protobuf.UInt32Value": "uint32",
  "google.protobuf.UInt64Value": "uint64",
};
/** The types of whole numbers. */
export const INTEGERS = new Set(Object.keys(RANGES));

/**
 * Return what is wrong with a request.
 *
 * @param {import("./schema.js").Schema} schema
 * @param {string} messageName - the full name of its message.
 * @param {any} value - as JSON.
 * @returns {{field: string, description: string}[]}
 */
export function check(schema, messageName, value) {
  const found = [];
  checkMessage(schema, messageName, value, "", (field, description) => found.push({ field, description }));
  return found;
}

function checkMessage(schema, name, value, path, report) {
  if (!isObject(value)) {
    report(path, "must be an object");
    return;
  }
  const message = schema.message(name);
  const byKey = new Map(
    message.fields.flatMap((field) => [
      [field.json, field],
      [field.name, field],
    ]),
  );
  const given = new Map();
  for (const [key, content] of Object.entries(value)) {
    const field = byKey.get(key);
    if (!field) {
      report(below(path, key), "there is no field of this name");
    } else if (content !== null) {
      given.has(field.name) && report(below(path, field.name), "is set twice");
      given.set(field.name, content);
    }
  }
  for (const field of message.fields) {
    // What only the server sets is ignored in requests.
    if (!field.output) {
      checkField(schema, field, given.get(field.name), below(path, field.name), report);
    }
  }
  for (const [oneof, rules] of Object.entries(message.oneofs ?? {})) {
    const members = message.fields.filter((field) => field.oneof === oneof);
    const set = members.filter((field) => given.has(field.name));
    const names = members.map((field) => field.name).join(", ");
    if (set.length > 1) {
      report(path || oneof, `only one of ${names} can be set`);
    } else if (set.length === 0 && rules.required) {
      report(below(path, oneof), `one of ${names} must be set`);
    }
  }
}

function checkField(schema, field, content, path, report) {
  const rules = field.rules ?? {};
  if (field.label === "repeated") {
    checkList(schema, field, content ?? [], path, report);
  } else if (field.label === "map") {
    checkMap(schema, field, content ?? {}, path, report);
  } else if (content === undefined) {
    checkAbsent(field, rules, path, report);
  } else {
    checkValue(schema, field, rules, content, path, report);
  }
}

function checkAbsent(field, rules, path, report) {
  const hasPresence = field.type === "message" || field.oneof || field.presence;
  if (rules.required) {
    report(path, "is required");
  } else if (!hasPresence && !rules.ignore_empty) {
    // An absent value is the default one, to which the rules apply.
    const isText = field.type === "string" || field.type === "bytes";
    if (isText && (rules.min_len || rules.uuid || rules.email)) {
      report(path, "is required");
    } else if (INTEGERS.has(field.type)) {
      checkRange(rules, 0n, path, report);
    }
  }
}

function checkList(schema, field, content, path, report) {
  const rules = field.rules ?? {};
  if (!Array.isArray(content)) {
    report(path, "must be a list");
    return;
  }
  checkCount(content.length, rules.min_items, rules.max_items, "element", path, report);
  content.forEach((element, index) => {
    checkValue(schema, field, rules.items ?? {}, element, `${path}[${index}]`, report);
  });
}

function checkMap(schema, field, content, path, report) {
  const rules = field.rules ?? {};
  if (!isObject(content)) {
    report(path, "must be an object");
    return;
  }
  const entries = Object.entries(content);
  checkCount(entries.length, rules.min_pairs, rules.max_pairs, "entry", path, report);
  for (const [key, element] of entries) {
    const at = `${path}[${JSON.stringify(key)}]`;
    checkScalar(field.key, rules.keys ?? {}, field.key === "bool" ? key === "true" : key, at, (_, text) =>
      report(at, `the key ${text}`),
    );
    checkValue(schema, field, rules.values ?? {}, element, at, report);
  }
}

function checkCount(count, least, most, what, path, report) {
  if (least !== undefined && count < least) {
    report(path, count === 0 ? "is required" : `must have at least ${counted(least, what)}`);
  } else if (most !== undefined && count > most) {
    report(path, `must have at most ${counted(most, what)}`);
  }
}

function checkValue(schema, field, rules, content, path, report) {
  if (field.type === "message") {
    checkMessageValue(schema, field, rules, content, path, report);
  } else if (field.type === "enum") {
    checkEnum(schema, field, rules, content, path, report);
  } else if (!(rules.ignore_empty && (content === "" || content === 0 || content === "0" || content === false))) {
    checkScalar(field.type, rules, content, path, report);
  }
}

function checkMessageValue(schema, { ref }, rules, content, path, report) {
  if (WRAPPERS[ref]) {
    checkScalar(WRAPPERS[ref], rules, content, path, report);
  } else if (ref === "google.protobuf.Timestamp") {
    if (typeof content !== "string" || !TIMESTAMP.test(content) || Number.isNaN(Date.parse(content))) {
      report(path, "must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z");
    }
  } else if (ref === "google.protobuf.Duration") {
    if (typeof content !== "string" || !DURATION.test(content)) {
      report(path, "must be a number of seconds with an s, such as 1.5s");
    }
  } else if (ref === "google.protobuf.FieldMask") {
    if (typeof content !== "string" || !FIELD_MASK.test(content)) {
      report(path, "must be the names of fields in lowerCamelCase, separated by commas");
    }
  } else if (schema.message(ref)) {
    checkMessage(schema, ref, content, path, report);
  }
}

function checkEnum(schema, { ref }, rules, content, path, report) {
  const values = schema.enums[ref].values;
  const found = values.find(([name, , number]) => name === content || number === content);
  if (!found) {
    const isUnknownNumber = Number.isInteger(content) && !rules.defined_only;
    !isUnknownNumber && report(path, `must be one of ${values.map(([name]) => name).join(", ")}`);
  } else if (rules.not_in?.includes(found[2]) || (rules.in && !rules.in.includes(found[2]))) {
    report(path, `must not be ${found[0]}`);
  }
}

function checkScalar(type, rules, content, path, report) {
  if (type === "string") {
    typeof content === "string" ? checkText(rules, content, path, report) : report(path, "must be a string");
  } else if (type === "bool") {
    if (typeof content !== "boolean") {
      report(path, "must be true or false");
    } else if (rules.const !== undefined && content !== rules.const) {
      report(path, `must be ${rules.const}`);
    }
  } else if (type === "bytes") {
    (typeof content !== "string" || !BASE64.test(content)) && report(path, "must be bytes in base64");
  } else if (type === "double" || type === "float") {
    const number = typeof content === "number" ? content : Number.NaN;
    !Number.isFinite(number) && !["NaN", "Infinity", "-Infinity"].includes(content) && report(path, "must be a number");
  } else {
    checkInteger(type, rules, content, path, report);
  }
}

function checkInteger(type, rules, content, path, report) {
  const [least, most] = RANGES[type];
  const isWhole = typeof content === "number" ? Number.isInteger(content) : /^-?\d{1,20}$/.test(String(content));
  const number = isWhole && (typeof content === "number" || typeof content === "string") ? BigInt(content) : null;
  if (number === null || number < least || number > most) {
    report(path, `must be a whole number between ${least} and ${most}`);
  } else {
    checkRange(rules, number, path, report);
  }
}

function checkRange(rules, number, path, report) {
  const bounds = [
    ["gte", (bound) => number >= bound, "at least"],
    ["gt", (bound) => number > bound, "more than"],
    ["lte", (bound) => number <= bound, "at most"],
    ["lt", (bound) => number < bound, "less than"],
  ];
  for (const [rule, holds, words] of bounds) {
    if (rules[rule] !== undefined && !holds(BigInt(rules[rule]))) {
      report(path, `must be ${words} ${rules[rule]}`);
    }
  }
}

function checkText(rules, content, path, report) {
  const length = [...content].length;
  if (rules.uuid && !UUID.test(content)) {
    report(path, content ? "must be a UUID" : "is required");
  } else if (rules.email && !/^[^@\s]+@[^@\s]+$/.test(content)) {
    report(path, content ? "must be an e-mail address" : "is required");
  } else if (rules.min_len !== undefined && length < rules.min_len) {
    report(path, length === 0 ? "is required" : `must have at least ${counted(rules.min_len, "character")}`);
  } else if (rules.max_len !== undefined && length > rules.max_len) {
    report(path, `must have at most ${counted(rules.max_len, "character")}, and has ${length}`);
  } else if (rules.pattern && !new RegExp(rules.pattern, "u").test(content)) {
    report(path, patternRule(rules.pattern) ?? `must match ${rules.pattern}`);
  }
}

// The patterns of the protos in words.
const PATTERNS = {
  "^\\P{Cc}*$": "must be on one line, without control characters",
  "^[\\r\\n\\t\\P{Cc}]*$": "must have no control characters",
  "^https?://[^\\s\\p{Cc}]+$": "must be a URL that begins with http:// or https://",
};

function patternRule(pattern) {
  return PATTERNS[pattern];
}

/** Return the rules of a field in short phrases, for people. */
export function describeRules(field) {
  const rules = field.rules ?? {};
  const phrases = [
    ...lengthPhrases(rules.min_items, rules.max_items, "element"),
    ...lengthPhrases(rules.min_pairs, rules.max_pairs, "entry"),
  ];
  const each = { ...rules, ...rules.items, ...rules.values };
  if (each.uuid) {
    phrases.push("UUID");
  }
  if (each.email) {
    phrases.push("e-mail address");
  }
  phrases.push(...lengthPhrases(each.min_len, each.max_len, "character"));
  for (const [rule, words] of [
    ["gte", "at least"],
    ["gt", "more than"],
    ["lte", "at most"],
    ["lt", "less than"],
  ]) {
    each[rule] !== undefined && phrases.push(`${words} ${each[rule]}`);
  }
  if (each.pattern) {
    phrases.push(
      {
        "^\\P{Cc}*$": "one line",
        "^[\\r\\n\\t\\P{Cc}]*$": "no control characters",
        "^https?://[^\\s\\p{Cc}]+$": "http(s) URL",
      }[each.pattern] ?? `matches ${each.pattern}`,
    );
  }
  phrases.push(...(rules.says ?? []));
  if (field.permission) {
    phrases.push(`needs ${field.permission}`);
  }
  return phrases;
}

function lengthPhrases(least, most, what) {
  if (least !== undefined && most !== undefined) {
    return [`${least} to ${counted(most, what)}`];
  }
  if (most !== undefined) {
    return [`at most ${counted(most, what)}`];
  }
  return least === undefined ? [] : [`at least ${counted(least, what)}`];
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function below(path, name) {
  return path ? `${path}.${name}` : name;
}
