import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type Client,
  ClientTimeout,
  type CommerceError,
  CursorExpired,
  InvalidCursor,
  MemoryCursorStore,
  Unavailable,
  type WatchOptions,
} from "../src/index.js";
import { createClient, FileCursorStore } from "../src/node.js";
import type { WatchOrdersRequestSchema } from "../src/orders.js";
import { TcpProxy } from "./support/proxy.js";
import { deleteEvents, restoreEvents } from "./support/python.js";
import { freePort, sharedAddress } from "./support/server.js";
import { createOrder, createUser, eventually, rejection } from "./support/shop.js";

let client: Client;
let proxy: TcpProxy;
let proxied: Client;
let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watches-"));
  client = createClient({ address: sharedAddress(), tls: false });
  proxy = await TcpProxy.start(sharedAddress());
  proxied = createClient({ address: proxy.address, tls: false });
});

afterEach(() => {
  proxy.silent = false;
});

after(async () => {
  client.close();
  proxied.close();
  proxy.close();
  await rm(folder, { recursive: true });
});

/** Return a request for all events of the orders of a user. */
function fromEarliest(userId: string): MessageInitShape<typeof WatchOrdersRequestSchema> {
  return { start: { case: "earliest", value: true }, userIds: [userId] };
}

/** Create orders, and return their ids. */
async function createOrders(userId: string, count: number): Promise<string[]> {
  const ids = [];
  for (let index = 0; index < count; index += 1) ids.push((await createOrder(client, userId)).id);
  return ids;
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
  assert.deepEqual(
    await later,
    [first, ...others].map(({ id }) => id),
  );
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
  const closing = createClient({ address: sharedAddress(), tls: false });
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
  const ids = await createOrders(user.id, 3);
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
  for await (const { event } of client.orders.watchOrders({
    userIds: [user.id],
    start: { case: "cursor", value: cursor },
  })) {
    assert.equal(event.orderId, orders[1]?.id);
    break;
  }
});

test("a watch whose connection breaks continues without a gap and without repetitions", async () => {
  const user = await createUser(client);
  const store = new MemoryCursorStore();
  const broken: CommerceError[] = [];
  const options = { cursorStore: store, onReconnect: (error: CommerceError) => broken.push(error) };
  const seen = next(proxied, user.id, 6, options);
  const created = await createOrders(user.id, 3);
  await eventually(() => store.cursor !== undefined);
  proxy.cut();
  created.push(...(await createOrders(user.id, 3)));
  assert.deepEqual(await seen, created);
  assert(broken.length > 0);
});

test("a watch from now on continues after its last event when its connection breaks", async () => {
  const user = await createUser(client);
  const store = new MemoryCursorStore();
  const seen: string[] = [];
  const watching = (async () => {
    for await (const { event } of proxied.orders.watchOrders({ userIds: [user.id] }, { cursorStore: store })) {
      if (seen.push(event.orderId) === 4) return;
    }
  })();
  await eventually(() => store.cursor !== undefined);
  const created = await createOrders(user.id, 2);
  await eventually(() => seen.length === 2);
  proxy.cut();
  created.push(...(await createOrders(user.id, 2)));
  await watching;
  assert.deepEqual(seen, created);
});

test("events that come again after a gap are dropped", async () => {
  const user = await createUser(client);
  const gaps: CursorExpired[] = [];
  const onGap = (gap: CursorExpired): void => {
    gaps.push(gap);
  };
  const seen: string[] = [];
  const watching = (async () => {
    for await (const { event } of proxied.orders.watchOrders(fromEarliest(user.id), { onGap })) {
      if (seen.push(event.orderId) === 3) return;
    }
  })();
  const created = await createOrders(user.id, 2);
  await eventually(() => seen.length === 2);
  await restoreEvents();
  proxy.cut();
  created.push(...(await createOrders(user.id, 1)));
  await watching;
  assert.deepEqual(seen, created);
  assert(gaps.length > 0);
});

test("a watch that gets no more checkpoints connects again", async () => {
  const user = await createUser(client);
  const store = new MemoryCursorStore();
  const stalled: CommerceError[] = [];
  const onReconnect = (error: CommerceError): void => {
    stalled.push(error);
    proxy.silent = false;
  };
  const seen = next(proxied, user.id, 2, { cursorStore: store, stallTimeoutMs: 1_000, onReconnect });
  const created = await createOrders(user.id, 1);
  await eventually(() => store.cursor !== undefined);
  proxy.silent = true;
  created.push(...(await createOrders(user.id, 1)));
  assert.deepEqual(await seen, created);
  assert(stalled[0] instanceof ClientTimeout, String(stalled[0]));
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
