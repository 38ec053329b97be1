// Node: @grpc/grpc-js and pg, written by hand with as few steps as possible; every call is one prepared statement.
//
// For successful calls of these methods it does what the service does: the same rows, the same messages, and a repeated
// request_id has one effect and one response. Missing: validation of requests, error details (few statuses, without
// reasons), filters other than user_id, credit, etags, validate_only, request ids of ConfirmOrder, retries, timeouts,
// the log, and encoded messages in rows.

import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import pg from "pg";
import { v7 as uuid7 } from "uuid";

const PROTOS = fileURLToPath(new URL("../../../protos", import.meta.url));
const METHOD = "/commerce.orders.v1.OrderService/CreateOrder";
const NANOS = 1_000_000_000n;
const NUMBER_BLOCK = 32;

const loaded = protoLoader.loadSync(
  ["commerce/users/v1/user_service.proto", "commerce/orders/v1/order_service.proto"],
  { includeDirs: [PROTOS, `${PROTOS}/third_party`], keepCase: true, longs: Number, defaults: true },
);
const userService = loaded["commerce.users.v1.UserService"];
const orderService = loaded["commerce.orders.v1.OrderService"];

// Read bigint as a number: all values that are read here are below 2^53, so they stay exact.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL.replace("+asyncpg", ""), max: 10 });

const micros = (column) => `(extract(epoch FROM ${column}) * 1000000)::bigint`;
const USERS = `
  SELECT u.id, u.email, u.username, u.full_name, p.bio, p.avatar_url, u.state, u.superuser, u.version,
    ${micros("u.create_time")} AS create_time, ${micros("u.update_time")} AS update_time,
    ${micros("u.delete_time")} AS delete_time, ${micros("u.purge_time")} AS purge_time
  FROM users u LEFT JOIN user_profiles p ON p.user_id = u.id`;
const USER = `${USERS} WHERE u.id = $1`;
const USERS_OF_IDS = `${USERS} WHERE u.id = ANY($1)`;
const ORDER_COLUMNS = `
  o.id, o.order_number, o.user_id, o.status, o.currency, trunc(o.total_amount)::bigint AS units,
  (o.total_amount % 1 * 1000000000)::int AS nanos, o.external_ref, o.metadata, o.tracking_number, o.cancel_reason,
  o.version, ${micros("o.create_time")} AS create_time, ${micros("o.update_time")} AS update_time,
  (SELECT json_agg(json_build_array(i.id, i.product_id, i.name, i.quantity, trunc(i.unit_price)::bigint,
    (i.unit_price % 1 * 1000000000)::int, trunc(i.subtotal)::bigint, (i.subtotal % 1 * 1000000000)::int) ORDER BY i.id)
    FROM order_items i WHERE i.order_id = o.id) AS items,
  ARRAY(SELECT t.name FROM order_tags ot JOIN tags t ON t.id = ot.tag_id WHERE ot.order_id = o.id ORDER BY t.name)
    AS tags`;
const ORDERS = `SELECT ${ORDER_COLUMNS} FROM orders o WHERE o.user_id = $1`;
const NEWEST = "ORDER BY o.create_time DESC, o.id DESC LIMIT $2";
const FIRST_ORDERS = `${ORDERS} ${NEWEST}`;
const NEXT_ORDERS = `${ORDERS}
  AND (o.create_time, o.id) < (timestamptz 'epoch' + $3::bigint * interval '1 microsecond', $4::uuid) ${NEWEST}`;
const BUYER = "buyer AS (SELECT id FROM users WHERE id = $3 AND state = 'ACTIVE' FOR SHARE)";
const placed = (source) => `
  placed AS (
    INSERT INTO orders (id, order_number, user_id, status, currency, total_amount, external_ref, metadata, version,
      create_time, update_time)
    SELECT $1, $2, id, 'PENDING', $4, $5, $6, $7, 1, $8, $8 FROM ${source}
    RETURNING id, user_id
  ), items AS (
    INSERT INTO order_items (order_id, id, product_id, name, quantity, unit_price, subtotal)
    SELECT $1, i.* FROM placed,
      unnest($9::uuid[], $10::text[], $11::text[], $12::int[], $13::numeric[], $14::numeric[]) i
  )
  INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
  SELECT $15, 'order', id, 'CREATED', 'anonymous', $8, '[]', user_id, 'PENDING' FROM placed`;
const CREATE_ORDER = `WITH ${BUYER}, ${placed("buyer")}`;
const CREATE_ORDER_ONCE = `
  WITH ${BUYER}, claim AS (
    INSERT INTO request_ids (caller, method, request_id, body_digest, response)
    SELECT 'anonymous', '${METHOD}', $16, $17, $18 FROM buyer
    ON CONFLICT DO NOTHING RETURNING $3::uuid AS id
  ), ${placed("claim")}`;
const ANSWER = `
  SELECT body_digest, response FROM request_ids
  WHERE caller = 'anonymous' AND method = '${METHOD}' AND request_id = $1`;
const CONFIRM_ORDER = `
  WITH o AS (
    UPDATE orders SET status = 'CONFIRMED', version = version + 1, update_time = greatest(update_time, $2)
    WHERE id = $1 AND status = 'PENDING' AND credit_state IS NULL
    RETURNING *
  ), confirmed AS (
    INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
    SELECT $3, 'order', id, 'CONFIRMED', 'anonymous', update_time,
      '[{"field": "status", "old_value": "PENDING", "new_value": "CONFIRMED"}]', user_id, status
    FROM o
  )
  SELECT ${ORDER_COLUMNS} FROM o`;

// pg prepares a statement with a name once on each connection.
const query = (name, text, values) => pool.query({ name, text, values });

class Refused extends Error {
  constructor(code, details) {
    super(details);
    this.status = { code, details };
  }
}

async function getUser({ id }) {
  const { rows } = await query("user", USER, [id]);
  if (!rows.length) throw new Refused(grpc.status.NOT_FOUND, "no such user");
  return { user: userFields(rows[0]) };
}

async function batchGetUsers({ ids }) {
  const { rows } = await query("users", USERS_OF_IDS, [ids]);
  const users = new Map(rows.map((row) => [row.id, userFields(row)]));
  if (!ids.every((id) => users.has(id))) throw new Refused(grpc.status.NOT_FOUND, "no such user");
  return { users: ids.map((id) => users.get(id)) };
}

async function listOrders({ user_id, page_size, page_token }) {
  const size = page_size || 50;
  const after = page_token ? Buffer.from(page_token, "base64url").toString().split(" ") : [];
  const { rows } = page_token
    ? await query("next orders", NEXT_ORDERS, [user_id, size + 1, ...after])
    : await query("orders", FIRST_ORDERS, [user_id, size + 1]);
  const last = rows.length > size ? rows[size - 1] : null;
  return {
    orders: rows.slice(0, size).map(orderFields),
    next_page_token: last ? Buffer.from(`${last.create_time} ${last.id}`).toString("base64url") : "",
  };
}

async function createOrder(request) {
  const asked = request.order;
  const now = Date.now();
  const currency = asked.items[0].unit_price.currency_code;
  const prices = asked.items.map(({ unit_price }) => BigInt(unit_price.units) * NANOS + BigInt(unit_price.nanos));
  const subtotals = asked.items.map(({ quantity }, index) => prices[index] * BigInt(quantity));
  const total = subtotals.reduce((sum, subtotal) => sum + subtotal);
  const order = {
    id: uuid7(),
    order_number: `ORD-${String(await nextNumber()).padStart(8, "0")}`,
    user_id: asked.user_id,
    status: "ORDER_STATUS_PENDING",
    items: asked.items.map(({ product_id, name, quantity, unit_price }, index) => ({
      id: uuid7(),
      product_id,
      name,
      quantity,
      unit_price,
      subtotal: money(currency, subtotals[index]),
    })),
    total_amount: money(currency, total),
    external_ref: asked.external_ref,
    metadata: asked.metadata,
    etag: "v1",
    create_time: timestamp(now * 1000),
    update_time: timestamp(now * 1000),
  };
  const response = { order };
  const values = [
    order.id,
    order.order_number,
    order.user_id,
    currency,
    decimal(total),
    order.external_ref || null,
    order.metadata,
    new Date(now),
    order.items.map((item) => item.id),
    order.items.map((item) => item.product_id),
    order.items.map((item) => item.name),
    order.items.map((item) => item.quantity),
    prices.map(decimal),
    subtotals.map(decimal),
    uuid7(),
  ];
  if (!request.request_id) {
    const { rowCount } = await query("create", CREATE_ORDER, values);
    if (!rowCount) throw new Refused(grpc.status.FAILED_PRECONDITION, "no such active user");
    return response;
  }
  const digest = createHash("sha256").update(orderService.CreateOrder.requestSerialize(request)).digest();
  values.push(request.request_id, digest, orderService.CreateOrder.responseSerialize(response));
  const { rowCount } = await query("create once", CREATE_ORDER_ONCE, values);
  if (rowCount) return response;
  const { rows } = await query("answer", ANSWER, [request.request_id]);
  if (!rows.length || !rows[0].body_digest.equals(digest)) {
    throw new Refused(grpc.status.FAILED_PRECONDITION, "no such active user, or a used request_id");
  }
  return orderService.CreateOrder.responseDeserialize(rows[0].response);
}

async function confirmOrder({ id }) {
  const { rows } = await query("confirm", CONFIRM_ORDER, [id, new Date(), uuid7()]);
  if (!rows.length) throw new Refused(grpc.status.FAILED_PRECONDITION, "no such PENDING order");
  return { order: orderFields(rows[0]) };
}

// Each value of the sequence stands for a block of NUMBER_BLOCK order numbers: one query per block.
let numbers = [];
async function nextNumber() {
  while (!numbers.length) {
    const { rows } = await query("number", "SELECT nextval('order_number_seq') AS start", []);
    numbers = Array.from({ length: NUMBER_BLOCK }, (_, index) => rows[0].start + NUMBER_BLOCK - 1 - index);
  }
  return numbers.pop();
}

const userFields = (row) => ({
  id: row.id,
  email: row.email,
  username: row.username,
  full_name: row.full_name,
  profile: { bio: row.bio ?? "", avatar_url: row.avatar_url ?? "" },
  state: `USER_STATE_${row.state}`,
  superuser: row.superuser,
  etag: `v${row.version}`,
  create_time: timestamp(row.create_time),
  update_time: timestamp(row.update_time),
  delete_time: row.delete_time === null ? null : timestamp(row.delete_time),
  purge_time: row.purge_time === null ? null : timestamp(row.purge_time),
});

const orderFields = (row) => ({
  id: row.id,
  order_number: row.order_number,
  user_id: row.user_id,
  status: `ORDER_STATUS_${row.status}`,
  items: row.items.map(([id, product_id, name, quantity, price, priceNanos, subtotal, subtotalNanos]) => ({
    id,
    product_id,
    name,
    quantity,
    unit_price: { currency_code: row.currency, units: price, nanos: priceNanos },
    subtotal: { currency_code: row.currency, units: subtotal, nanos: subtotalNanos },
  })),
  total_amount: { currency_code: row.currency, units: row.units, nanos: row.nanos },
  external_ref: row.external_ref ?? "",
  metadata: row.metadata,
  tags: row.tags,
  tracking_number: row.tracking_number ?? "",
  cancel_reason: row.cancel_reason ?? "",
  etag: `v${row.version}`,
  create_time: timestamp(row.create_time),
  update_time: timestamp(row.update_time),
});

const timestamp = (us) => ({ seconds: Math.floor(us / 1_000_000), nanos: (us % 1_000_000) * 1000 });
const money = (currency_code, nanos) => ({
  currency_code,
  units: Number(nanos / NANOS),
  nanos: Number(nanos % NANOS),
});
const decimal = (nanos) => `${nanos / NANOS}.${String(nanos % NANOS).padStart(9, "0")}`;

const unary = (handle) => (call, callback) =>
  handle(call.request).then(
    (response) => callback(null, response),
    (error) => callback(error.status ?? { code: grpc.status.INTERNAL, details: error.message }),
  );

const server = new grpc.Server();
server.addService(userService, { GetUser: unary(getUser), BatchGetUsers: unary(batchGetUsers) });
server.addService(orderService, {
  ListOrders: unary(listOrders),
  CreateOrder: unary(createOrder),
  ConfirmOrder: unary(confirmOrder),
});
server.bindAsync(`127.0.0.1:${process.env.PORT}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
process.on("SIGTERM", () => {
  setTimeout(() => server.forceShutdown(), 1000).unref();
  server.tryShutdown(() => pool.end());
});
