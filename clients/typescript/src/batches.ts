import {
  create,
  type DescMessage,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import type { Channel } from "./channel.js";
import type { CallOptions } from "./options.js";
import { itemsField } from "./pages.js";
import { ResponseTooLarge } from "./reasons.js";
import { callUnary } from "./unary.js";

/** How many ids a request may have (`max_items` of the protos). */
const MAX_IDS = 1000;

/**
 * Get any number of resources, in the order of their ids.
 *
 * More ids than one request may have, or resources that are too large for one response, are divided among several
 * calls, one after another. Each has the time-outs of a call, and reads at its own time.
 */
export async function batchGet<I extends DescMessage, O extends DescMessage>(
  channel: Channel,
  method: DescMethodUnary<I, O>,
  init: MessageInitShape<I>,
  options: CallOptions = {},
): Promise<MessageShape<O>> {
  const field = itemsField(method.output);
  const items: unknown[] = [];
  const { ids } = create(method.input, init) as unknown as { readonly ids: readonly string[] };

  const get = async (part: readonly string[]): Promise<void> => {
    let found: MessageShape<O>;
    try {
      found = await callUnary(channel, method, { ids: part } as unknown as MessageInitShape<I>, options);
    } catch (error) {
      if (!(error instanceof ResponseTooLarge) || part.length < 2) throw error;
      const half = part.length / 2;
      await get(part.slice(0, half));
      await get(part.slice(half));
      return;
    }
    items.push(...((found as Record<string, unknown>)[field.localName] as unknown[]));
  };

  // Without ids, too: the service says that there must be some.
  for (let start = 0; start === 0 || start < ids.length; start += MAX_IDS) await get(ids.slice(start, start + MAX_IDS));
  return create(method.output, { [field.localName]: items } as MessageInitShape<O>);
}
