// The script of a page that uses the package. The test calls its functions, with the URL of a service of another origin.

import { CommerceError, deriveRequestId, IllegalTransition, InvalidField, money, moneyAmount } from "commerce-client";
import { OrderStatus } from "commerce-client/orders";
import { createClient } from "commerce-client/web";

type Client = ReturnType<typeof createClient>;

async function newOrder(client: Client, name: string) {
  const request = { user: { email: `${name}@example.com`, username: name }, password: "correct horse" };
  const { user } = await client.users.createUser(request);
  const items = [{ productId: "r7", name: "Rocket", quantity: 2, unitPrice: money("10.50", "EUR") }];
  const requestId = await deriveRequestId("page", name);
  const { order } = await client.orders.createOrder({ order: { userId: user!.id, items }, requestId });
  return order!;
}

async function caught(call: Promise<unknown>): Promise<unknown> {
  try {
    await call;
  } catch (error) {
    return error;
  }
  throw new Error("the call did not fail");
}

/** A call, its repetition, and pages. */
async function unary(baseUrl: string, name: string) {
  const client = createClient({ baseUrl });
  const order = await newOrder(client, name);
  const { order: confirmed } = await client.orders.confirmOrder({ id: order.id });
  const listed = await client.orders.listOrders({ userId: order.userId }).all();
  return {
    total: moneyAmount(order.totalAmount!),
    status: OrderStatus[confirmed!.status],
    isListed: listed.map(({ id }) => id).join() === order.id,
  };
}

/** Errors with their details, some of which are in headers. */
async function errors(baseUrl: string, name: string) {
  const client = createClient({ baseUrl });
  const order = await newOrder(client, name);
  const illegal = await caught(client.orders.deliverOrder({ id: order.id }));
  const invalid = await caught(client.orders.createOrder({ order: { userId: "nobody" } }));
  if (!(illegal instanceof IllegalTransition && invalid instanceof InvalidField)) throw new Error("other errors");
  return {
    allowed: illegal.allowed,
    outcome: illegal.outcome,
    named: illegal.xRequestId !== "" && illegal.message.includes(illegal.xRequestId),
    fields: invalid.violations.map(({ field }) => field),
  };
}

/** A stream that ends, one that goes on until the loop is left, and one that the page cancels. */
async function streams(baseUrl: string, name: string) {
  const client = createClient({ baseUrl });
  const order = await newOrder(client, name);
  const exported = [];
  for await (const { orderNumber } of client.orders.exportOrders({ userId: order.userId })) exported.push(orderNumber);
  const controller = new AbortController();
  const seen = [];
  const request = { start: { case: "earliest", value: true } as const, userIds: [order.userId] };
  for await (const { event } of client.orders.watchOrders(request, { signal: controller.signal })) {
    seen.push(event.orderId);
    // The next response is a checkpoint, which never comes out of the loop.
    setTimeout(() => controller.abort(), 50);
  }
  return { exported: exported.join() === order.orderNumber, seen: seen.join() === order.id };
}

/** What a page sees whose origin the service does not name. */
async function refused(baseUrl: string) {
  const error = await caught(createClient({ baseUrl, timeoutMs: 500 }).users.listUsers({}).page());
  return error instanceof CommerceError && error.outcome;
}

Object.assign(globalThis, { page: { unary, errors, streams, refused } });
