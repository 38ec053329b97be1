/**
 * Calls methods over the HTTP port as plain JSON (docs/http.md), on the server that served this page.
 *
 * Requests and responses are in protobuf's JSON format: names in lowerCamelCase, numbers of 64 bits as strings, default
 * values left out.
 */

import { credentialHeaders } from "./credentials.js";
import { cutOff, fromElsewhere, fromStatus, unreachable } from "./failures.js";

/**
 * Call a method with one response.
 *
 * @param {string} method - `commerce.users.v1.UserService/GetUser`.
 * @param {object} request - the request.
 * @param {object} options
 * @param {AbortSignal} [options.signal] - cancels the call; then it rejects with the signal's reason.
 * @param {number} [options.timeout] - the deadline in milliseconds; without, that of the service.
 * @returns {Promise<object>} the response; `infoOf(response)` tells more about the call.
 * @throws {CallError}
 */
export async function call(method, request = {}, { signal, timeout } = {}) {
  const started = performance.now();
  const response = await send(method, request, signal, timeout);
  const text = await read(method, response, signal);
  const info = {
    ms: performance.now() - started,
    requestId: response.headers.get("x-request-id") ?? "",
    bytes: text.length,
  };
  if (!response.ok) {
    throw await failure(method, response, text, info);
  }
  const value = parsed(text);
  if (value === undefined) {
    throw await cutOff(method, info);
  }
  infos.set(value, info);
  return value;
}

/** What is known about the call of a response: `{ms, requestId, bytes}`. */
export function infoOf(response) {
  return infos.get(response);
}

const infos = new WeakMap();

/**
 * Call a method with a stream of responses, and yield them as they come. Leaving the loop cancels the call.
 *
 * @param {string} method
 * @param {object} request
 * @param {object} options - as for `call`, and `onOpen({requestId})`, called when the server has accepted the call.
 * @yields {object}
 * @throws {CallError} the stream failed, or was cut before its end marker.
 */
export async function* stream(method, request = {}, { signal, timeout, onOpen } = {}) {
  const started = performance.now();
  const stopping = new AbortController();
  const either = signal ? AbortSignal.any([signal, stopping.signal]) : stopping.signal;
  const response = await send(method, request, either, timeout);
  const info = () => ({ ms: performance.now() - started, requestId: response.headers.get("x-request-id") ?? "" });
  if (!response.ok) {
    throw await failure(method, response, await read(method, response, either), info());
  }
  onOpen?.(info());
  try {
    for await (const line of linesOf(response, signal)) {
      if (line === undefined) {
        break;
      } else if (line.result !== undefined) {
        yield line.result;
      } else if (line.error) {
        throw await fromStatus(method, line.error, info());
      } else if (line.end) {
        return;
      }
    }
    signal?.throwIfAborted();
    throw await cutOff(method, info());
  } finally {
    stopping.abort();
  }
}

async function* linesOf(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    let part;
    try {
      part = await reader.read();
    } catch {
      // The connection broke, or the call was cancelled.
      signal?.throwIfAborted();
      return;
    }
    if (part.done) {
      return;
    }
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      yield parsed(line);
    }
  }
}

async function send(method, request, signal, timeout) {
  const headers = { "content-type": "application/json", ...credentialHeaders() };
  if (timeout) {
    headers["connect-timeout-ms"] = String(Math.ceil(timeout));
  }
  try {
    return await fetch(`../${method}`, {
      method: "POST",
      headers,
      body: typeof request === "string" ? request : JSON.stringify(request),
      credentials: "omit",
      cache: "no-store",
      signal,
    });
  } catch (error) {
    signal?.throwIfAborted();
    throw await unreachable(method, error);
  }
}

async function read(method, response, signal) {
  try {
    return await response.text();
  } catch {
    signal?.throwIfAborted();
    throw await cutOff(method, { requestId: response.headers.get("x-request-id") ?? "" });
  }
}

/** Return what is wrong, in the words of a response that is not OK. */
export async function responseFailure(response) {
  const status = parsed(await response.text());
  return status?.message ?? `The server answered with HTTP ${response.status}.`;
}

async function failure(method, response, text, info) {
  const status = parsed(text);
  if (status?.code === undefined) {
    return fromElsewhere(method, response, info);
  }
  return fromStatus(method, status, info);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
