import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  Cancelled,
  type Client,
  CommerceError,
  deriveRequestId,
  EtagMismatch,
  FailedPrecondition,
  IllegalTransition,
  InsufficientCredit,
  InvalidArgument,
  InvalidField,
  money,
  moneyAmount,
  NotFound,
  OrderNotFound,
  UserAlreadyExists,
} from "../src/index.js";
import { createClient } from "../src/node.js";
import { CreateOrderRequestSchema, OrderStatus } from "../src/orders.js";
import { UserImportOnConflict } from "../src/users.js";
import { sharedAddress } from "./support/server.js";
import { createOrder, createUser, newOrder, rejection } from "./support/shop.js";

let client: Client;

before(() => {
  client = createClient({ address: sharedAddress(), tls: false });
});

after(() => {
  client.close();
});

test("a call takes and returns plain values", async () => {
  const user = await createUser(client);
  const { order } = await client.orders.createOrder({
    order: { ...newOrder(user.id), metadata: { colour: "red" } },
  });
  assert(order?.totalAmount !== undefined && order.createTime !== undefined);
  assert.equal(moneyAmount(order.totalAmount), "21.00");
  assert.equal(order.status, OrderStatus.PENDING);
  assert.deepEqual(order.metadata, { colour: "red" });
  assert(Math.abs(timestampDate(order.createTime).getTime() - Date.now()) < 3_600_000);
  const found = await client.orders.getOrder({ key: { case: "orderNumber", value: order.orderNumber } });
  assert.deepEqual(found.order, order);
});

test("a request without a requestId gets one, and the message of the caller stays as it is", async () => {
  const user = await createUser(client);
  const request = create(CreateOrderRequestSchema, { order: newOrder(user.id) });
  const first = await client.orders.createOrder(request);
  const second = await client.orders.createOrder(request);
  assert.equal(request.requestId, "");
  assert.notEqual(first.order?.id, second.order?.id);
});

test("a derived requestId repeats the first answer", async () => {
  const user = await createUser(client);
  const requestId = await deriveRequestId("cart", user.id);
  assert.match(requestId, /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const first = await client.orders.createOrder({ order: newOrder(user.id), requestId });
  const again = await client.orders.createOrder({
    order: newOrder(user.id),
    requestId: await deriveRequestId("cart", user.id),
  });
  assert.deepEqual(again, first);
  assert.equal((await client.orders.listOrders({ userId: user.id }).all()).length, 1);
});

test("validateOnly writes nothing", async () => {
  const user = await createUser(client);
  const { order } = await client.orders.createOrder({ order: newOrder(user.id), validateOnly: true });
  assert.equal(order?.status, OrderStatus.PENDING);
  assert.deepEqual(await client.orders.listOrders({ userId: user.id }).all(), []);
});

test("an error says what is wrong with which field, and that nothing was written", async () => {
  const user = await createUser(client);
  const items = [{ productId: "r7", name: "Rocket", quantity: 0, unitPrice: money(99n, "EUR") }];
  const error = await rejection(client.orders.createOrder({ order: { userId: user.id, items } }));
  assert(error instanceof InvalidField && error instanceof InvalidArgument && error instanceof CommerceError);
  assert.deepEqual(
    error.violations.map(({ field, reason }) => ({ field, reason })),
    [{ field: "order.items[0].quantity", reason: "INT32_GTE_LTE" }],
  );
  assert.deepEqual(
    [error.name, error.reason, error.outcome, error.attempts],
    ["InvalidField", "INVALID_FIELD", "not_written", 1],
  );
  assert.match(
    error.message,
    /^INVALID_FIELD: order\.items\[0\]\.quantity: .* \[CreateOrder; nothing was written; x-request-id [0-9a-f-]{36}\]$/,
  );
});

test("errors have classes with what is special about them", async () => {
  const user = await createUser(client);
  const order = await createOrder(client, user.id);
  const illegal = await rejection(client.orders.shipOrder({ id: order.id, trackingNumber: "1Z" }));
  assert(illegal instanceof IllegalTransition && illegal instanceof FailedPrecondition);
  assert.deepEqual([illegal.state, illegal.allowed], ["PENDING", ["CONFIRMED", "CANCELLED"]]);
  assert.equal(illegal.subject, `orders/${order.id}`);
  const missing = await rejection(client.orders.getOrder({ key: { case: "id", value: user.id } }));
  assert(missing instanceof OrderNotFound && missing instanceof NotFound);
  assert.deepEqual(missing.resource, { type: "commerce.orders.v1.Order", name: user.id });
  const taken = await rejection(
    client.users.createUser({ user: { email: user.email, username: "another" }, password: "correct horse" }),
  );
  assert(taken instanceof UserAlreadyExists);
  assert.equal(taken.field, "email");
  const stale = await rejection(client.orders.confirmOrder({ id: order.id, etag: "old" }));
  assert(stale instanceof EtagMismatch);
  const poor = await rejection(client.orders.createOrder({ order: newOrder(user.id), payWithCredit: true }));
  assert(poor instanceof InsufficientCredit);
});

test("metadata goes both ways", async () => {
  const user = await createUser(client);
  let metadata = new Headers();
  const headers = { "x-request-id": "made-by-the-caller" };
  const key = { case: "id", value: user.id } as const;
  await client.users.getUser(
    { key },
    { headers, readPreference: "primary", onMetadata: (received) => (metadata = received) },
  );
  assert.equal(metadata.get("x-request-id"), "made-by-the-caller");
  const refused = await rejection(client.users.getUser({ key }, { headers: { "x-read-preference": "nearest" } }));
  assert(refused instanceof InvalidField);
});

test("pages come by item, by page and one by one", async () => {
  const user = await createUser(client);
  const ids = [];
  for (let index = 0; index < 7; index += 1) ids.unshift((await createOrder(client, user.id)).id);
  const pages = client.orders.listOrders({ userId: user.id, pageSize: 3 });
  const items = [];
  for await (const order of pages) items.push(order.id);
  assert.deepEqual(items, ids);
  const sizes = [];
  for await (const page of pages.byPage()) sizes.push(page.orders.length);
  assert.deepEqual(sizes, [3, 3, 1]);
  const first = await pages.page();
  const second = await client.orders
    .listOrders({ userId: user.id, pageSize: 3, pageToken: first.nextPageToken })
    .page();
  assert.deepEqual(
    [...first.orders, ...second.orders].map((order) => order.id),
    ids.slice(0, 6),
  );
  for await (const order of pages) {
    assert.equal(order.id, ids[0]);
    break;
  }
  const refused = await rejection(client.orders.listOrders({ userId: user.id, pageToken: "forged" }).all());
  assert(refused instanceof InvalidArgument);
});

test("a batch of more ids than one call may have keeps their order", async () => {
  const user = await createUser(client);
  const orders = [await createOrder(client, user.id), await createOrder(client, user.id)];
  const ids = Array.from({ length: 2_001 }, (_, index) => orders[index % 2]?.id ?? "");
  const found = await client.orders.batchGetOrders({ ids });
  assert.deepEqual(
    found.orders.map((order) => order.id),
    ids,
  );
  const refused = await rejection(client.orders.batchGetOrders({ ids: [] }));
  assert(refused instanceof InvalidField);
});

test("a batch that is too large for one response is divided", async () => {
  const user = await createUser(client);
  const text = "x".repeat(500);
  const metadata = Object.fromEntries(Array.from({ length: 64 }, (_, index) => [`key ${index}`, text]));
  const { order } = await client.orders.createOrder({ order: { ...newOrder(user.id), metadata } });
  const ids = Array.from({ length: 200 }, () => order?.id ?? "");
  const found = await client.orders.batchGetOrders({ ids });
  assert.deepEqual(
    found.orders.map((each) => each.id),
    ids,
  );
});

test("users are imported and exported", async () => {
  const prefix = `i${process.pid}.${Date.now()}`;
  const rows = ["a", "b", "a"].map((name) => ({
    email: `${prefix}.${name}@example.com`,
    username: `${prefix}.${name}`,
  }));
  const result = await client.users.importUsers(rows);
  assert.deepEqual([result.createdCount, result.skippedCount, result.lastCommittedRow], [2n, 1n, 3n]);
  const failed = await rejection(
    client.users.importUsers(rows, { onConflict: UserImportOnConflict.FAIL, firstRowNumber: 11n }),
  );
  assert(failed instanceof UserAlreadyExists);
  assert.deepEqual([failed.outcome, failed.metadata["last_committed_row"]], ["not_written", "10"]);
  const exported = [];
  for await (const user of client.users.exportUsers({}))
    if (user.username.startsWith(prefix)) exported.push(user.username);
  assert.deepEqual(exported.sort(), [`${prefix}.a`, `${prefix}.b`]);
});

test("a signal cancels a call and an export", async () => {
  const controller = new AbortController();
  const call = client.users.listUsers({}).page();
  await call;
  controller.abort(new Error("the user left"));
  const cancelled = await rejection(client.users.listUsers({}, { signal: controller.signal }).page());
  assert(cancelled instanceof Cancelled);
  assert.equal(cancelled.outcome, "not_written");
  assert.equal((cancelled.cause as Error).message, "the user left");
  const exported = await rejection(client.users.exportUsers({}, { signal: controller.signal }).next());
  assert(exported instanceof Cancelled);
});
