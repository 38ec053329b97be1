import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import {
  Cancelled,
  type Client,
  ClientTimeout,
  CommerceError,
  MemoryCursorStore,
  OrderNotFound,
  Overloaded,
  Unavailable,
} from "../src/index.js";
import { createClient, type NodeClientOptions } from "../src/node.js";
import { TcpProxy } from "./support/proxy.js";
import { freePort, Server, sharedAddress } from "./support/server.js";
import { createUser, eventually, newOrder, rejection } from "./support/shop.js";

let proxy: TcpProxy;
/** A server that takes one call at a time; it starts while the other tests run. */
let busy: Promise<Server>;
const clients: Client[] = [];

function connect(options: Partial<NodeClientOptions> = {}): Client {
  const client = createClient({ address: proxy.address, tls: false, ...options });
  clients.push(client);
  return client;
}

before(async () => {
  busy = Server.start({ MAX_CONCURRENT_CALLS: 1 });
  proxy = await TcpProxy.start(sharedAddress());
});

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  proxy.silent = false;
  proxy.lostAnswers = 0;
});

after(async () => {
  proxy.close();
  await (await busy).kill();
});

test("a write whose answer is lost is repeated with its requestId, and written once", async () => {
  const retried: CommerceError[] = [];
  const client = connect({ onRetry: (error) => retried.push(error) });
  const user = await createUser(client);
  proxy.lostAnswers = 2;
  const { order } = await client.orders.createOrder({ order: newOrder(user.id) });
  assert.deepEqual(
    retried.map((error) => [error.outcome, error.attempts]),
    [
      ["unknown", 1],
      ["unknown", 2],
    ],
  );
  const stored = await client.orders.listOrders({ userId: user.id }).all();
  assert.deepEqual(
    stored.map(({ id }) => id),
    [order?.id],
  );
});

test("without repetitions, its outcome is unknown", async () => {
  const client = connect({ retry: { maxAttempts: 1 } });
  const user = await createUser(client);
  proxy.lostAnswers = 1;
  const error = await rejection(client.orders.createOrder({ order: newOrder(user.id) }));
  assert(error instanceof CommerceError);
  assert.deepEqual([error.outcome, error.attempts, error.reason], ["unknown", 1, ""]);
  assert.match(error.message, /\[CreateOrder; the write may have happened; x-request-id /);
  assert.equal((await client.orders.listOrders({ userId: user.id }).all()).length, 1);
});

test("what an error says of the outcome covers all attempts", async () => {
  const client = connect({ timeoutMs: 2_000, retry: { maxAttempts: 2 } });
  const user = await createUser(client);
  proxy.lostAnswers = 2;
  const unknown = await rejection(client.orders.createOrder({ order: newOrder(user.id) }));
  assert.equal((unknown as CommerceError).outcome, "unknown");
  // The second attempt is answered: no attempt has found an order.
  proxy.lostAnswers = 1;
  const missing = await rejection(client.orders.confirmOrder({ id: user.id }));
  assert(missing instanceof OrderNotFound);
  assert.deepEqual([missing.outcome, missing.attempts], ["not_written", 2]);
});

test("a read is repeated", async () => {
  const client = connect();
  const user = await createUser(client);
  proxy.lostAnswers = 3;
  const found = await client.users.getUser({ key: { case: "id", value: user.id } });
  assert.deepEqual(found.user, user);
});

test("a call that has no requestId and may have had an effect is not repeated", async () => {
  const client = connect();
  const user = await createUser(client);
  proxy.lostAnswers = 1;
  const request = { login: { case: "username", value: user.username }, password: "correct horse battery" } as const;
  const error = await rejection(client.users.verifyPassword(request));
  assert(error instanceof CommerceError);
  assert.deepEqual([error.outcome, error.attempts], ["unknown", 1]);
  assert.deepEqual((await client.users.verifyPassword(request)).user?.id, user.id);
});

test("a server that nobody can reach has written nothing", async () => {
  const client = connect({ address: `127.0.0.1:${await freePort()}`, retry: { maxAttempts: 3 } });
  const error = await rejection(client.orders.createOrder({ order: newOrder("") }));
  assert(error instanceof Unavailable);
  assert.deepEqual([error.outcome, error.attempts], ["not_written", 3]);
});

test("a call ends in its total time, and each attempt in its own", async () => {
  const client = connect();
  const user = await createUser(client);
  proxy.silent = true;
  const options = { timeoutMs: 1_500, attemptTimeoutMs: 100 };
  const write = await rejection(client.orders.createOrder({ order: newOrder(user.id) }, options));
  assert(write instanceof ClientTimeout);
  assert.equal(write.outcome, "unknown");
  assert(write.attempts > 1, write.message);
  const read = await rejection(client.users.getUser({ key: { case: "id", value: user.id } }, { timeoutMs: 100 }));
  assert(read instanceof ClientTimeout);
  assert.equal(read.outcome, "not_written");
  assert.equal(read.description, "no answer within 100 ms");
});

test("a call can be cancelled while it waits to be repeated", async () => {
  const controller = new AbortController();
  const client = connect({
    address: `127.0.0.1:${await freePort()}`,
    onRetry: () => {
      controller.abort(new Error("enough"));
    },
  });
  const error = await rejection(client.users.listUsers({}, { signal: controller.signal }).page());
  assert(error instanceof Cancelled);
  assert.deepEqual([(error.cause as Error).message, error.attempts], ["enough", 1]);
});

test("an export whose connection breaks continues without a gap and without repetitions", async () => {
  const retried: CommerceError[] = [];
  const client = connect({ onRetry: (error) => retried.push(error) });
  const user = await createUser(client);
  const text = "x".repeat(500);
  const metadata = Object.fromEntries(Array.from({ length: 64 }, (_, index) => [`key ${index}`, text]));
  const created = [];
  // Two megabytes, of which most are still with the server when the first order has arrived.
  for (let index = 0; index < 60; index += 1) {
    const { order } = await client.orders.createOrder({ order: { ...newOrder(user.id), metadata } });
    created.push(order?.id);
  }
  const exported = [];
  for await (const { id } of client.orders.exportOrders({ userId: user.id })) {
    if (exported.push(id) === 1) proxy.cut();
  }
  assert.deepEqual(exported, created);
  assert(retried.length > 0);
});

test("many calls can run at the same time", async () => {
  const client = connect();
  const user = await createUser(client);
  const warnings: Error[] = [];
  process.on("warning", (warning) => warnings.push(warning));
  const calls = Array.from({ length: 50 }, () => client.users.getUser({ key: { case: "id", value: user.id } }));
  await Promise.all(calls);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(warnings, []);
});

test("a closed client ends its calls", async () => {
  const client = connect();
  const user = await createUser(client);
  proxy.silent = true;
  const call = rejection(client.users.getUser({ key: { case: "id", value: user.id } }));
  const later = setImmediate(() => {
    client.close();
  });
  assert(((await call) as Error) instanceof Cancelled);
  clearImmediate(later);
  assert((await rejection(client.users.listUsers({}).page())) instanceof Cancelled);
});

test("a refused call waits as long as the server asks for", async () => {
  const waits: { asked: number | undefined; delay: number }[] = [];
  const user = await createUser(connect());
  const server = await busy;
  const client = connect({
    address: server.address,
    onRetry: (error, delay) => {
      assert(error instanceof Overloaded);
      waits.push({ asked: error.retryAfterMs, delay });
      // The place becomes free before the call is repeated.
      controller.abort();
    },
  });
  const controller = new AbortController();
  const store = new MemoryCursorStore();
  const watching = (async () => {
    for await (const _ of client.orders.watchOrders({}, { signal: controller.signal, cursorStore: store }));
  })();
  await eventually(() => store.cursor !== undefined);
  const refused = await rejection(client.users.getUser({ key: { case: "id", value: user.id } }, { timeoutMs: 400 }));
  assert(refused instanceof Overloaded);
  assert.equal(refused.attempts, 1);
  const found = await client.users.getUser({ key: { case: "id", value: user.id } });
  assert.equal(found.user?.id, user.id);
  await watching;
  assert(waits.length >= 1);
  for (const { asked, delay } of waits) assert(asked !== undefined && asked >= 500 && delay >= asked);
});
