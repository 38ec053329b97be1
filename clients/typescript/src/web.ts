import type { Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { type Client, createClient as createClientOn } from "./client.js";
import type { ClientOptions } from "./options.js";

/** Options of a client in a browser. */
export interface WebClientOptions extends ClientOptions {
  /** URL of the service's HTTP port, for example `https://commerce.example.com`. */
  readonly baseUrl: string;
  /** Interceptors of Connect, the outermost first. */
  readonly interceptors?: readonly Interceptor[] | undefined;
  /** Replaces the global `fetch`, for example to send cookies. */
  readonly fetch?: typeof globalThis.fetch | undefined;
}

/** Make a client that calls the service's HTTP port with the Connect protocol, through `fetch`. */
export function createClient({ baseUrl, interceptors, fetch, ...options }: WebClientOptions): Client {
  const transport = createConnectTransport({
    baseUrl,
    useBinaryFormat: true,
    interceptors: [...(interceptors ?? [])],
    ...(fetch === undefined ? {} : { fetch }),
  });
  return createClientOn(transport, options);
}
