import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, money } from "../../src/index.js";
import type { Order, OrderSchema } from "../../src/orders.js";
import type { User } from "../../src/users.js";

let count = 0;

/** Create a user with a unique name. */
export async function createUser(client: Client): Promise<User> {
  count += 1;
  const username = `u${process.pid}.${Date.now()}.${count}`;
  const { user } = await client.users.createUser({
    user: { email: `${username}@example.com`, username, fullName: "Ada Lovelace" },
    password: "correct horse battery",
  });
  if (user === undefined) throw new Error("no user");
  return user;
}

/** Return an order to create, of 2 x 10.50 EUR. */
export function newOrder(userId: string, externalRef = ""): MessageInitShape<typeof OrderSchema> {
  return {
    userId,
    externalRef,
    items: [{ productId: "anvil", name: "Anvil", quantity: 2, unitPrice: money("10.50", "EUR") }],
  };
}

/** Create an order. */
export async function createOrder(client: Client, userId: string, externalRef = ""): Promise<Order> {
  const { order } = await client.orders.createOrder({ order: newOrder(userId, externalRef) });
  if (order === undefined) throw new Error("no order");
  return order;
}

/** Return the value of a promise that must be rejected. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it was not rejected");
}

/** Wait until a condition holds. */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 20_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not true in time: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
