/** Recognizes what a person types to find an order. */

import { isUuid } from "../lib/ids.js";

const DIGITS = 8;
const NUMBER = /^(?:ord(?:er)?)?[\s#:_-]*0*([0-9]{1,19})$/i;

/**
 * Return the key of GetOrder for an id, or for an order number in any spelling: `42`, `#42`, `ord-42`, `ORD-00000042`.
 *
 * @param {string} text
 * @returns {{id: string} | {orderNumber: string} | null} null if the text is neither
 */
export function orderKey(text) {
  const trimmed = text.trim().normalize("NFKC");
  if (isUuid(trimmed)) return { id: trimmed.toLowerCase() };
  const match = NUMBER.exec(trimmed);
  return match ? { orderNumber: `ORD-${match[1].padStart(DIGITS, "0")}` } : null;
}
