import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient } from "../src/node.js";
import { freePort, Server, STOPS_SOON } from "./support/server.js";
import { createUser, newOrder } from "./support/shop.js";

const ORDERS = 1_000;
const CONCURRENT = 16;

test("a crash and a stop of the server lose and double none of a thousand orders, also not for a watch", async (t) => {
  const port = await freePort();
  // Other tests make all cursors of theirs invalid.
  const start = (): Promise<Server> => Server.start(STOPS_SOON, port, process.env["TEST_ANOTHER_DATABASE"]);
  let server = await start();
  let repeated = 0;
  const client = createClient({ address: server.address, tls: false, onRetry: () => (repeated += 1) });
  t.after(async () => {
    client.close();
    await server.kill();
  });
  const user = await createUser(client);

  const watched: string[] = [];
  let breaks = 0;
  const watching = (async () => {
    const request = { start: { case: "earliest", value: true } as const, userIds: [user.id] };
    const events = client.orders.watchOrders(request, { onReconnect: () => (breaks += 1) });
    for await (const { event } of events) if (watched.push(event.orderId) === ORDERS) return;
  })();

  const placed = new Map<string, string>();
  let next = 0;
  const place = async (): Promise<void> => {
    for (let number = next++; number < ORDERS; number = next++) {
      const order = { ...newOrder(user.id), metadata: { number: String(number) } };
      const response = await client.orders.createOrder({ order });
      placed.set(String(number), response.order?.id ?? "");
    }
  };
  const restartAt = async (count: number, end: () => Promise<void>): Promise<void> => {
    while (placed.size < count) await new Promise((resolve) => setTimeout(resolve, 5));
    await end();
    server = await start();
  };
  const restarting = (async () => {
    await restartAt(ORDERS / 3, () => server.kill());
    await restartAt((ORDERS * 2) / 3, () => server.stop());
  })();
  await Promise.all([restarting, watching, ...Array.from({ length: CONCURRENT }, place)]);

  assert.equal(placed.size, ORDERS);
  const stored = await client.orders.listOrders({ userId: user.id, pageSize: 1_000 }).all();
  const numbered = stored.map((order) => [order.metadata["number"], order.id]);
  assert.deepEqual(numbered.sort(), [...placed].sort());
  assert.deepEqual([...watched].sort(), stored.map(({ id }) => id).sort());
  assert(repeated > 0);
  assert(breaks > 0);
});
