/** Identifiers of resources. */

const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;

/** Return whether the text is a UUID, with or without hyphens. */
export function isUuid(text) {
  return UUID.test(text);
}

/**
 * Return a short form of an id that still tells ids apart: ids of one day begin alike, and those of one user end alike.
 */
export function shortId(id) {
  return id.length === 36 ? `…${id.slice(19, 23)}-${id.slice(24, 32)}…` : id;
}
