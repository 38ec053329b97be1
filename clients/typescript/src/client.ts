import type {
  DescMessage,
  DescMethod,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { batchGet } from "./batches.js";
import { Channel } from "./channel.js";
import { type ExportOptions, exportAll } from "./exports.js";
import { OrderService } from "./gen/commerce/orders/v1/order_service_pb.js";
import { UserService } from "./gen/commerce/users/v1/user_service_pb.js";
import { type ImportOptions, type ImportRow, importUsers } from "./imports.js";
import type { CallOptions, ClientOptions } from "./options.js";
import { type ItemOf, listPages, type Pages } from "./pages.js";
import { callUnary } from "./unary.js";
import { type Watched, type WatchOptions, watch } from "./watch.js";

/** The method of a client for a method of a service. */
type ClientMethod<M extends DescMethod> =
  M extends DescMethodUnary<infer I, infer O>
    ? MessageShape<I> extends { pageToken: string }
      ? (request: MessageInitShape<I>, options?: CallOptions) => Pages<MessageShape<O>, ItemOf<MessageShape<O>>>
      : (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? MessageShape<O> extends { content: infer Content }
        ? (
            request: MessageInitShape<I>,
            options?: WatchOptions,
          ) => AsyncGenerator<Watched<EventOf<Content>>, void, undefined>
        : (
            request: MessageInitShape<I>,
            options?: ExportOptions,
          ) => AsyncGenerator<ItemOf<MessageShape<O>>, void, undefined>
      : M extends DescMethodClientStreaming<infer _I, infer O>
        ? (rows: Iterable<ImportRow> | AsyncIterable<ImportRow>, options?: ImportOptions) => Promise<MessageShape<O>>
        : never;

type EventOf<Content> = Extract<Content, { case: "event" }> extends { value: infer Event } ? Event : never;

/** A client of one service: a method for each of its methods, with the same comments. */
export type ServiceClient<S extends DescService> = {
  [Name in keyof S["method"]]: ClientMethod<S["method"][Name]>;
};

/** A client of both services. */
export interface Client {
  readonly users: ServiceClient<typeof UserService>;
  readonly orders: ServiceClient<typeof OrderService>;
  /** End all calls, with `Cancelled`, and all watches. The client cannot be used any more. */
  close(): void;
}

/**
 * Make a client that calls through a transport of Connect, for example one with interceptors of your own. The functions
 * of the same name in `commerce-client/node` and `commerce-client/web` make the transport too.
 */
export function createClient(transport: Transport, options: ClientOptions = {}): Client {
  const channel = new Channel(transport, options);
  return {
    users: serviceClient(channel, UserService),
    orders: serviceClient(channel, OrderService),
    close: () => {
      channel.close();
    },
  };
}

function serviceClient<S extends DescService>(channel: Channel, service: S): ServiceClient<S> {
  const methods = service.methods.map((method) => [method.localName, clientMethod(channel, method)]);
  return Object.fromEntries(methods) as ServiceClient<S>;
}

/** Choose by the descriptor how to call a method, as `ClientMethod` does for its type. */
function clientMethod(channel: Channel, method: DescMethod): unknown {
  if (method.methodKind === "unary") {
    const call = hasField(method.input, "page_token")
      ? listPages
      : method.name.startsWith("BatchGet")
        ? batchGet
        : callUnary;
    return (request: MessageInitShape<DescMessage>, options?: CallOptions) =>
      call(channel, method as DescMethodUnary, request, options);
  }
  if (method.methodKind === "server_streaming") {
    const streaming = method as DescMethodServerStreaming;
    if (hasField(method.output, "cursor")) {
      return (request: MessageInitShape<DescMessage>, options?: WatchOptions) =>
        watch(channel, streaming, request, options);
    }
    return (request: MessageInitShape<DescMessage>, options?: ExportOptions) =>
      exportAll(channel, streaming, request, options);
  }
  if (method.name === "ImportUsers") {
    return (rows: Iterable<ImportRow> | AsyncIterable<ImportRow>, options?: ImportOptions) =>
      importUsers(channel, UserService.method.importUsers, rows, options);
  }
  throw new TypeError(`this client has no form for ${method.name}, which streams requests`);
}

function hasField(message: DescMessage, name: string): boolean {
  return message.fields.some((field) => field.name === name);
}
