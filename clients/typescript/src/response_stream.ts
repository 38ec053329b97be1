import type { DescMessage, DescMethodStreaming, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Channel } from "./channel.js";

/** The responses to one call of a server-streaming method. */
export class ResponseStream<O extends DescMessage> {
  /** The metadata that the call was made with. */
  readonly headers: Headers;
  readonly #controller = new AbortController();
  readonly #responses: AsyncIterator<MessageShape<O>>;

  constructor(
    channel: Channel,
    method: DescMethodStreaming<DescMessage, O>,
    request: MessageInitShape<DescMessage>,
    headers: Headers,
  ) {
    this.headers = headers;
    this.#responses = responsesOf(channel, method, just(request), headers, this.#controller.signal);
  }

  /** Return the next response, or undefined at the end. Throws if there is none within this time. */
  async next(milliseconds: number): Promise<MessageShape<O> | undefined> {
    const timer = setTimeout(() => {
      const message = `no response within ${Math.round(milliseconds)} ms`;
      this.#controller.abort(new ConnectError(message, Code.DeadlineExceeded));
    }, milliseconds);
    try {
      const { done, value } = await this.#responses.next();
      return done === true ? undefined : value;
    } catch (error) {
      throw this.#controller.signal.aborted ? this.#controller.signal.reason : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** End the call. */
  close(): void {
    this.#controller.abort(new ConnectError("the stream was closed", Code.Canceled));
  }
}

/** Call a streaming method, without a deadline. The call begins with the first iteration. */
export async function* responsesOf<I extends DescMessage, O extends DescMessage>(
  channel: Channel,
  method: DescMethodStreaming<I, O>,
  requests: AsyncIterable<MessageInitShape<I>>,
  headers: Headers,
  signal: AbortSignal,
): AsyncGenerator<MessageShape<O>, void, undefined> {
  // 0: not even the default deadline of the transport.
  const response = await channel.transport.stream(method, signal, 0, headers, requests);
  yield* response.message;
}

async function* just<T>(value: T): AsyncGenerator<T, void, undefined> {
  yield value;
}
