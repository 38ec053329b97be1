import assert from "node:assert/strict";
import { after, test } from "node:test";
import { InvalidField, MemoryCursorStore, OrderNotFound } from "../src/index.js";
import { OrderStatus } from "../src/orders.js";
import { createClient } from "../src/web.js";
import { createOrder, createUser, eventually, rejection } from "./support/shop.js";

const baseUrl = process.env["TEST_HTTP_URL"];
const skip = baseUrl === undefined && "the server has no HTTP port";
const client = createClient({ baseUrl: baseUrl ?? "" });

after(() => {
  client.close();
});

test("over the transport of browsers, calls, errors and pages are the same", { skip }, async () => {
  const user = await createUser(client);
  const ids = [];
  for (let index = 0; index < 3; index += 1) ids.unshift((await createOrder(client, user.id)).id);
  const confirmed = await client.orders.confirmOrder({ id: ids[0] ?? "" });
  assert.equal(confirmed.order?.status, OrderStatus.CONFIRMED);
  const listed = await client.orders.listOrders({ userId: user.id, pageSize: 2 }).all();
  assert.deepEqual(
    listed.map(({ id }) => id),
    ids,
  );
  const missing = await rejection(client.orders.getOrder({ key: { case: "id", value: user.id } }));
  assert(missing instanceof OrderNotFound);
  assert.deepEqual(missing.resource, { type: "commerce.orders.v1.Order", name: user.id });
  const invalid = await rejection(client.orders.createOrder({ order: { userId: user.id, items: [{ quantity: 0 }] } }));
  assert(invalid instanceof InvalidField);
  assert.notEqual(invalid.violations.length, 0);
  let metadata = new Headers();
  const headers = { "x-request-id": "made-by-the-page" };
  await client.users.listUsers({}, { headers, onMetadata: (received) => (metadata = received) }).page();
  assert.equal(metadata.get("x-request-id"), "made-by-the-page");
});

test("over the transport of browsers, exports and watches are the same", { skip }, async () => {
  const user = await createUser(client);
  const order = await createOrder(client, user.id);
  const exported = [];
  for await (const { id } of client.orders.exportOrders({ userId: user.id })) exported.push(id);
  assert.deepEqual(exported, [order.id]);
  const cursorStore = new MemoryCursorStore();
  const seen = (async () => {
    for await (const { event } of client.orders.watchOrders({ userIds: [user.id] }, { cursorStore }))
      return event.orderId;
    return undefined;
  })();
  await eventually(() => cursorStore.cursor !== undefined);
  const later = await createOrder(client, user.id);
  assert.equal(await seen, later.id);
});
