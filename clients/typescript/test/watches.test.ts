import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type Client,
  ClientTimeout,
  CommerceError,
  CursorExpired,
  InvalidCursor,
  MemoryCursorStore,
  Unavailable,
  type WatchOptions,
} from "../src/index.js";
import { createClient, FileCursorStore } from "../src/node.js";
import type { WatchOrdersRequestSchema } from "../src/orders.js";
import { Proxy } from "./support/proxy.js";
import { deleteEvents } from "./support/python.js";
import { freePort, Server } from "./support/server.js";
import { createOrder, createUser, eventually, rejection } from "./support/shop.js";

let server: Server;
let client: Client;
let proxy: Proxy;
let proxied: Client;
let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watches-"));
  server = await Server.start({ WATCH_CHECKPOINT_INTERVAL: 0.1 });
  client = createClient({ address: server.address, tls: false });
  proxy = await Proxy.start(server.port);
  proxied = createClient({ address: proxy.address, tls: false });
});

afterEach(() => {
  proxy.silent = false;
});

after(async () => {
  client.close();
  proxied.close();
  proxy.close();
  await server.kill();
  await rm(folder, { recursive: true });
});

/** Return a request for all events of the orders of a user. */
function fromEarliest(userId: string): MessageInitShape<typeof WatchOrdersRequestSchema> {
  return { start: { case: "earliest", value: true }, userIds: [userId] };
}

/** Return the ids of the orders of the next events of a user. */
async function next(watcher: Client, userId: string, count: number, options: WatchOptions = {}): Promise<string[]> {
  const seen: string[] = [];
  const request = fromEarliest(userId);
  for await (const { event } of watcher.orders.watchOrders(request, options)) {
    seen.push(event.orderId);
    if (seen.length === count) break;
  }
  return seen;
}

test("events come in order, until the loop ends", async () => {
  const user = await createUser(client);
  const first = await createOrder(client, user.id);
  const later = next(client, user.id, 3);
  const others = [await createOrder(client, user.id), await createOrder(client, user.id)];
  assert.deepEqual(await later, [first, ...others].map(({ id }) => id));
});

test("a signal ends a watch that waits, without an error", async () => {
  const controller = new AbortController();
  const store = new MemoryCursorStore();
  const ended = (async () => {
    for await (const { event } of client.users.watchUsers({}, { signal: controller.signal, cursorStore: store })) {
      assert.fail(event.id);
    }
    return "ended";
  })();
  await eventually(() => store.cursor !== undefined);
  controller.abort();
  assert.equal(await ended, "ended");
  for await (const _ of client.users.watchUsers({}, { signal: controller.signal })) assert.fail("it has ended");
});

test("closing the client ends its watches", async () => {
  const closing = createClient({ address: server.address, tls: false });
  const store = new MemoryCursorStore();
  const ended = (async () => {
    for await (const _ of closing.users.watchUsers({}, { cursorStore: store }));
    return "ended";
  })();
  await eventually(() => store.cursor !== undefined);
  closing.close();
  assert.equal(await ended, "ended");
});

test("an event is stored as handled when the next one is asked for", async () => {
  const user = await createUser(client);
  const ids = [];
  for (let index = 0; index < 3; index += 1) ids.push((await createOrder(client, user.id)).id);
  const cursorStore = new FileCursorStore(join(folder, "cursor"));
  assert.equal(await cursorStore.load(), undefined);
  assert.deepEqual(await next(client, user.id, 2, { cursorStore }), ids.slice(0, 2));
  // The loop ended while it handled the second one.
  assert.deepEqual(await next(client, user.id, 2, { cursorStore }), ids.slice(1));
  const again = new FileCursorStore(join(folder, "cursor"));
  assert.deepEqual(await next(client, user.id, 1, { cursorStore: again }), ids.slice(2));
});

test("the cursor beside an event continues after it", async () => {
  const user = await createUser(client);
  const orders = [await createOrder(client, user.id), await createOrder(client, user.id)];
  const request = fromEarliest(user.id);
  let cursor = "";
  for await (const watched of client.orders.watchOrders(request)) {
    cursor = watched.cursor;
    break;
  }
  for await (const { event } of client.orders.watchOrders({ userIds: [user.id], start: { case: "cursor", value: cursor } })) {
    assert.equal(event.orderId, orders[1]?.id);
    break;
  }
});

test("a watch whose connection breaks or falls silent continues without a gap and without repetitions", async () => {
  const user = await createUser(client);
  const created: string[] = [];
  const reasons: string[] = [];
  const store = new MemoryCursorStore();
  const options = {
    cursorStore: store,
    stallTimeoutMs: 1_000,
    onReconnect: (error: CommerceError) => {
      reasons.push(error.name);
      proxy.silent = false;
    },
  };
  const seen = next(proxied, user.id, 9, options);
  const create = async (): Promise<void> => {
    for (let index = 0; index < 3; index += 1) created.push((await createOrder(client, user.id)).id);
  };
  await create();
  await eventually(() => store.cursor !== undefined);
  proxy.cut();
  await create();
  await eventually(() => reasons.length === 1);
  // Only a missing checkpoint shows that this connection is dead.
  await eventually(() => proxy.connections > 1);
  proxy.silent = true;
  await create();
  assert.deepEqual(await seen, created);
  assert.equal(reasons.at(-1), ClientTimeout.name);
});

test("a watch survives a stop and a crash of its server", async () => {
  const port = await freePort();
  let watched = await Server.start({}, port);
  const watcher = createClient({ address: watched.address, tls: false });
  const user = await createUser(client);
  const created: string[] = [];
  const reasons: string[] = [];
  const store = new MemoryCursorStore();
  const onReconnect = (error: CommerceError): number => reasons.push(error.reason);
  const seen = next(watcher, user.id, 15, { cursorStore: store, onReconnect });
  const create = async (): Promise<void> => {
    for (let index = 0; index < 5; index += 1) created.push((await createOrder(client, user.id)).id);
  };
  await create();
  await eventually(() => store.cursor !== undefined);
  await watched.stop();
  await create();
  watched = await Server.start({}, port);
  const before = store.cursor;
  await eventually(() => store.cursor !== before);
  await watched.kill();
  await create();
  watched = await Server.start({}, port);
  assert.deepEqual(await seen, created);
  assert(reasons.includes("SERVER_DRAINING"), reasons.join());
  watcher.close();
  await watched.kill();
});

test("a watch throws what another stream would not mend", async () => {
  const forged = client.orders.watchOrders({ start: { case: "cursor", value: "forged" } });
  assert((await rejection(forged.next())) instanceof InvalidCursor);
  const nobody = createClient({ address: `127.0.0.1:${await freePort()}`, tls: false });
  const unreachable = nobody.orders.watchOrders({}, { connectTimeoutMs: 300 });
  assert((await rejection(unreachable.next())) instanceof Unavailable);
});

test("an error of the loop's own work leaves the event unhandled", async () => {
  const user = await createUser(client);
  await createOrder(client, user.id);
  const store = new MemoryCursorStore();
  const failing = (async () => {
    const request = fromEarliest(user.id);
    for await (const { event } of client.orders.watchOrders(request, { cursorStore: store })) {
      throw new RangeError(event.orderId);
    }
  })();
  assert((await rejection(failing)) instanceof RangeError);
  assert.equal((await next(client, user.id, 1, { cursorStore: store })).length, 1);
});

test("a gap is explicit", async () => {
  const user = await createUser(client);
  const store = new MemoryCursorStore();
  await createOrder(client, user.id);
  await createOrder(client, user.id);
  await next(client, user.id, 2, { cursorStore: store });
  const cursor = store.cursor;
  await createOrder(client, user.id);
  assert((await deleteEvents()) > 0);
  const later = await createOrder(client, user.id);
  const gap = await rejection(next(client, user.id, 1, { cursorStore: store }));
  assert(gap instanceof CursorExpired);
  assert.notEqual(gap.earliestCursor, "");
  // It is for the caller to decide that the gap does not matter.
  assert.equal(store.cursor, cursor);
  const gaps: CursorExpired[] = [];
  const onGap = (error: CursorExpired): void => {
    gaps.push(error);
  };
  assert.deepEqual(await next(client, user.id, 1, { cursorStore: store, onGap }), [later.id]);
  assert.equal(gaps.length, 1);
});
