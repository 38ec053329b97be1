import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient } from "../src/node.js";
import { freePort, Server } from "./support/server.js";
import { createUser, newOrder } from "./support/shop.js";

const ORDERS = 1_000;
const CONCURRENT = 16;

test("a server that crashes and stops amid a thousand orders loses none and doubles none", async () => {
  const port = await freePort();
  let server = await Server.start({}, port);
  let repeated = 0;
  const client = createClient({ address: server.address, tls: false, onRetry: () => (repeated += 1) });
  const user = await createUser(client);
  const placed = new Map<number, string>();
  let next = 0;
  const place = async (): Promise<void> => {
    for (let number = next++; number < ORDERS; number = next++) {
      const order = { ...newOrder(user.id), metadata: { number: String(number) } };
      const response = await client.orders.createOrder({ order });
      placed.set(number, response.order?.id ?? "");
    }
  };
  const restart = async (share: number, end: () => Promise<void>): Promise<void> => {
    while (placed.size < ORDERS * share) await new Promise((resolve) => setTimeout(resolve, 5));
    await end();
    server = await Server.start({}, port);
  };
  const restarting = (async () => {
    await restart(0.25, () => server.kill());
    await restart(0.5, () => server.stop());
    await restart(0.75, () => server.kill());
  })();
  await Promise.all([restarting, ...Array.from({ length: CONCURRENT }, place)]);
  const stored = await client.orders.listOrders({ userId: user.id, pageSize: 1_000 }).all();
  const found = stored.map((order) => [Number(order.metadata["number"]), order.id] as const);
  assert.deepEqual(
    found.sort(([first], [second]) => first - second),
    [...placed].sort(([first], [second]) => first - second),
  );
  assert.equal(placed.size, ORDERS);
  assert(repeated > 0);
  client.close();
  await server.kill();
});
