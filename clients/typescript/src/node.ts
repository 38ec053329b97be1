import { readFile, rename, writeFile } from "node:fs/promises";
import type { SecureClientSessionOptions } from "node:http2";
import type { Interceptor } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { type Client, createClient as createClientOn } from "./client.js";
import type { CursorStore } from "./cursor_stores.js";
import type { ClientOptions } from "./options.js";

/** Certificates and keys, PEM. Each may be the text or the bytes of a file. */
export interface TlsOptions {
  /** The CAs that sign the server's certificate. Default: those that Node.js trusts. */
  readonly ca?: string | Uint8Array | undefined;
  /** The certificate of this client (mTLS), with its chain. */
  readonly cert?: string | Uint8Array | undefined;
  /** The private key of that certificate. */
  readonly key?: string | Uint8Array | undefined;
  /** The name in the server's certificate, if it is not that in the address. */
  readonly serverName?: string | undefined;
}

/** Options of a client on Node.js. */
export interface NodeClientOptions extends ClientOptions {
  /** Host and port of the service's gRPC port, for example `commerce.internal:50051`. */
  readonly address: string;
  /**
   * How to use TLS. `false` sends plaintext; credentials are then sent to this machine only. Default: with the CAs that
   * Node.js trusts.
   */
  readonly tls?: TlsOptions | false | undefined;
  /** The largest response, in bytes. Default: 4 MiB, which is the default of the service. */
  readonly maxResponseBytes?: number | undefined;
  /** Interceptors of Connect, the outermost first. */
  readonly interceptors?: readonly Interceptor[] | undefined;
}

/** More than the service's `COMMERCE_MIN_PING_INTERVAL` of 10 seconds: it disconnects clients that ping faster. */
const PING_INTERVAL_MS = 20_000;
const PING_TIMEOUT_MS = 5_000;
const DEFAULT_MAX_RESPONSE_BYTES = 4 * 1024 * 1024;
const THIS_MACHINE = new Set(["localhost", "127.0.0.1", "[::1]"]);

/**
 * Make a client that calls the service with gRPC.
 *
 * It has one HTTP/2 connection, which opens with the first call, and again after the server or the network has closed
 * it. An idle client does not keep the process running.
 *
 * @throws TypeError: the address is no host and port, or credentials would be sent to another machine in plaintext.
 */
export function createClient(options: NodeClientOptions): Client {
  const { address, tls, maxResponseBytes, interceptors, ...others } = options;
  const url = urlOf(address, tls);
  if (tls === false && others.credentials !== undefined && !THIS_MACHINE.has(url.hostname)) {
    throw new TypeError("credentials are not sent to another machine in plaintext: use TLS");
  }
  const keepalive = { pingIntervalMs: PING_INTERVAL_MS, pingTimeoutMs: PING_TIMEOUT_MS };
  const sessionManager = new Http2SessionManager(url, keepalive, tls === false ? undefined : secureOptions(tls));
  const transport = createGrpcTransport({
    baseUrl: url.origin,
    sessionManager,
    readMaxBytes: maxResponseBytes ?? DEFAULT_MAX_RESPONSE_BYTES,
    interceptors: [...(interceptors ?? [])],
  });
  const client = createClientOn(transport, others);
  return {
    ...client,
    close: () => {
      client.close();
      sessionManager.abort();
    },
  };
}

function urlOf(address: string, tls: TlsOptions | false | undefined): URL {
  const text = `${tls === false ? "http" : "https"}://${address}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.href !== `${url?.origin}/`) {
    throw new TypeError(`the address must be a host and a port, such as commerce.internal:50051, not ${address}`);
  }
  return url as URL;
}

function secureOptions(tls: TlsOptions | undefined): SecureClientSessionOptions {
  const bytes = (pem: string | Uint8Array): string | Buffer => (typeof pem === "string" ? pem : Buffer.from(pem));
  return {
    ...(tls?.ca === undefined ? {} : { ca: bytes(tls.ca) }),
    ...(tls?.cert === undefined ? {} : { cert: bytes(tls.cert) }),
    ...(tls?.key === undefined ? {} : { key: bytes(tls.key) }),
    ...(tls?.serverName === undefined ? {} : { servername: tls.serverName }),
  };
}

/** Stores the cursor of a watch in a file, which is replaced as a whole, so that a crash cannot damage it. */
export class FileCursorStore implements CursorStore {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async load(): Promise<string | undefined> {
    try {
      return await readFile(this.#path, "utf8");
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
      throw error;
    }
  }

  async save(cursor: string): Promise<void> {
    const next = `${this.#path}.next`;
    await writeFile(next, cursor);
    await rename(next, this.#path);
  }
}
