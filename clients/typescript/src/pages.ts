import {
  create,
  type DescField,
  type DescMessage,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import type { Channel } from "./channel.js";
import type { CallOptions } from "./options.js";
import { callUnary } from "./unary.js";
import { LinkedSignal } from "./waiting.js";

/** The type of the elements of the only list in a message. */
export type ItemOf<Message> = {
  [Name in keyof Message]-?: Name extends `$${string}`
    ? never
    : Message[Name] extends readonly (infer Item)[]
      ? Item
      : never;
}[keyof Message];

/** Return the only list in a message. */
export function itemsField(message: DescMessage): DescField {
  const [field, ...others] = message.fields.filter((candidate) => candidate.fieldKind === "list");
  if (field === undefined || others.length > 0) throw new TypeError(`${message.typeName} must have one repeated field`);
  return field;
}

/**
 * The results of a list or a search.
 *
 *     for await (const order of client.orders.listOrders({ userId })) …
 *     for await (const page of client.orders.listOrders({ userId }).byPage()) …
 *     const page = await client.orders.listOrders({ userId, pageSize: 20, pageToken }).page();
 *
 * Each page is a call of its own, with the time-outs and repetitions of one. While a page is used, the next one is
 * already requested. Each iteration begins again, with the `pageToken` of the request.
 */
export class Pages<Page, Item> implements AsyncIterable<Item> {
  readonly #fetch: (pageToken: string | undefined, signal: AbortSignal | undefined) => Promise<Page>;
  readonly #itemsOf: (page: Page) => readonly Item[];
  readonly #nextTokenOf: (page: Page) => string;

  /**
   * @param fetch - Requests the page with a token, or the first one.
   * @internal
   */
  constructor(
    fetch: (pageToken: string | undefined, signal: AbortSignal | undefined) => Promise<Page>,
    itemsOf: (page: Page) => readonly Item[],
    nextTokenOf: (page: Page) => string,
  ) {
    this.#fetch = fetch;
    this.#itemsOf = itemsOf;
    this.#nextTokenOf = nextTokenOf;
  }

  /** Iterate over the items of all pages. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
    for await (const page of this.byPage()) yield* this.#itemsOf(page);
  }

  /** Iterate over the pages. */
  async *byPage(): AsyncGenerator<Page, void, undefined> {
    const prefetching = new AbortController();
    try {
      let next: Promise<Page> | undefined = this.#fetch(undefined, undefined);
      while (next !== undefined) {
        const page: Page = await next;
        const token = this.#nextTokenOf(page);
        next = token === "" ? undefined : this.#fetch(token, prefetching.signal);
        // It is awaited after the consumer has asked for it, or never; until then a failure is not unhandled.
        next?.catch(() => undefined);
        yield page;
      }
    } finally {
      prefetching.abort();
    }
  }

  /** Return the first page alone: that with the `pageToken` of the request. */
  page(): Promise<Page> {
    return this.#fetch(undefined, undefined);
  }

  /** Return the items of all pages together. */
  async all(): Promise<Item[]> {
    const items: Item[] = [];
    for await (const item of this) items.push(item);
    return items;
  }
}

/** Return the pages of a method whose requests have a `pageToken`. */
export function listPages<I extends DescMessage, O extends DescMessage>(
  channel: Channel,
  method: DescMethodUnary<I, O>,
  init: MessageInitShape<I>,
  options: CallOptions = {},
): Pages<MessageShape<O>, unknown> {
  const field = itemsField(method.output);
  const fetch = async (pageToken: string | undefined, signal: AbortSignal | undefined): Promise<MessageShape<O>> => {
    const request = { ...create(method.input, init), ...(pageToken === undefined ? {} : { pageToken }) };
    const linked = new LinkedSignal(options.signal, signal);
    try {
      return await callUnary(channel, method, request as MessageInitShape<I>, { ...options, signal: linked.signal });
    } finally {
      linked.unlink();
    }
  };
  const read = (page: MessageShape<O>, name: string): unknown => (page as Record<string, unknown>)[name];
  return new Pages(
    fetch,
    (page) => read(page, field.localName) as unknown[],
    (page) => read(page, "nextPageToken") as string,
  );
}
