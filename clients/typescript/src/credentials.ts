import { type CallSummary, noToken } from "./failures.js";

/** A bearer token (JWT), with the time at which it expires unless its own `exp` says so. */
export type Token = string | { readonly token: string; readonly expiresAt: Date };

/**
 * What says who makes the calls: an API key, or a token. A function that returns tokens is called again before the last
 * one expires, and when the service refuses it.
 */
export type Credentials = { readonly apiKey: string } | { readonly token: string | (() => Token | Promise<Token>) };

/** How long before a token expires another one is asked for: a call takes time, and clocks differ. */
const REFRESH_BEFORE_MS = 60_000;

interface Current {
  readonly token: string;
  readonly refreshAt: number;
}

/** Adds credentials to calls. */
export class CredentialHeaders {
  readonly #apiKey: string | undefined;
  readonly #source: (() => Token | Promise<Token>) | undefined;
  readonly #fixed: string | undefined;
  #current: Current | undefined;
  #refreshing: Promise<Current> | undefined;

  constructor(credentials: Credentials | undefined) {
    if (credentials === undefined) return;
    if ("apiKey" in credentials) this.#apiKey = credentials.apiKey;
    else if (typeof credentials.token === "string") this.#fixed = credentials.token;
    else this.#source = credentials.token;
  }

  /** Set the header of a call. Throws `CredentialsError` if the function that returns tokens fails. */
  async addTo(headers: Headers, call: () => CallSummary): Promise<void> {
    if (this.#apiKey !== undefined) headers.set("x-api-key", this.#apiKey);
    if (this.#fixed !== undefined) headers.set("authorization", `Bearer ${this.#fixed}`);
    if (this.#source === undefined) return;
    try {
      headers.set("authorization", `Bearer ${(await this.#valid(this.#source)).token}`);
    } catch (error) {
      throw noToken(error, call());
    }
  }

  /** Forget the token of these headers, which the service has refused; returns whether there can be another one. */
  refused(headers: Headers): boolean {
    if (this.#source === undefined) return false;
    // Another call may have replaced it already.
    if (headers.get("authorization") === `Bearer ${this.#current?.token}`) this.#current = undefined;
    return true;
  }

  async #valid(source: () => Token | Promise<Token>): Promise<Current> {
    if (this.#current !== undefined && Date.now() < this.#current.refreshAt) return this.#current;
    this.#refreshing ??= this.#refresh(source).finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #refresh(source: () => Token | Promise<Token>): Promise<Current> {
    const given = await source();
    const token = typeof given === "string" ? given : given.token;
    const expiresAt = typeof given === "string" ? expiryOf(token) : given.expiresAt.getTime();
    // A token that lives shorter than that is used for half of its life.
    const left = expiresAt - Date.now();
    this.#current = { token, refreshAt: expiresAt - Math.min(REFRESH_BEFORE_MS, left / 2) };
    return this.#current;
  }
}

/** Return when a token expires, in milliseconds: the claim `exp` of a JWT (RFC 7519, 4.1.4); never, if it has none. */
function expiryOf(token: string): number {
  const payload = token.split(".")[1];
  if (payload === undefined) return Number.POSITIVE_INFINITY;
  try {
    const claims: unknown = JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
    if (typeof claims === "object" && claims !== null && "exp" in claims && typeof claims.exp === "number") {
      return claims.exp * 1000;
    }
  } catch (error) {
    // Tokens of another kind are for the service to read.
    if (!(error instanceof SyntaxError || error instanceof DOMException)) throw error;
  }
  return Number.POSITIVE_INFINITY;
}
