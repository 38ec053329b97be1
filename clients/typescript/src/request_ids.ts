/** The name space of derived request ids: that of `derive_request_id` in the Python client. */
const REQUEST_IDS = "6f0a1d0c-58f5-4f5e-9d5f-0a4f1f4c7a31";

/** Return a new random UUID (version 4). Unlike `crypto.randomUUID`, works on pages that are not served over HTTPS. */
export function randomUuid(): string {
  return format(crypto.getRandomValues(new Uint8Array(16)), 4);
}

/**
 * Return a `requestId` that is always the same for the same parts, and different for others.
 *
 * A process that crashed can so repeat a call safely, if it finds the same parts again: for example the name of the job
 * and the number of the row. Responses are stored for 24 hours. The Python client derives the same id from the same
 * parts. In browsers, this works only on pages that are served over HTTPS or from localhost.
 *
 * @throws TypeError: there are no parts, or a number is not whole or too large to be exact.
 */
export async function deriveRequestId(...parts: readonly (string | number | bigint)[]): Promise<string> {
  if (parts.length === 0) throw new TypeError("name at least one part");
  // Other languages write them differently: 1e21, 1.0.
  const inexact = parts.find((part) => typeof part === "number" && !Number.isSafeInteger(part));
  if (inexact !== undefined) throw new TypeError(`${inexact} is not exact: pass a text or a bigint`);
  // Each part with its length in code points, so that ("a", "bc") and ("ab", "c") differ.
  const text = parts.map((part) => `${[...String(part)].length}:${part}`).join("");
  const space = REQUEST_IDS.replaceAll("-", "").match(/../g) ?? [];
  const name = new Uint8Array([...space.map((byte) => Number.parseInt(byte, 16)), ...new TextEncoder().encode(text)]);
  // A name-based UUID (RFC 9562, 5.5).
  return format(new Uint8Array(await crypto.subtle.digest("SHA-1", name)).slice(0, 16), 5);
}

/** Write 16 bytes as a UUID of this version (RFC 9562, 4.1 and 4.2). */
function format(bytes: Uint8Array, version: number): string {
  const hex = Array.from(bytes, (byte, index) => {
    if (index === 6) return (byte & 0x0f) | (version << 4);
    if (index === 8) return (byte & 0x3f) | 0x80;
    return byte;
  })
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
