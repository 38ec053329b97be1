import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import {
  type Client,
  CommerceError,
  CredentialsError,
  MemoryCursorStore,
  PermissionMissing,
  UnauthenticatedCaller,
} from "../src/index.js";
import { createClient, type NodeClientOptions } from "../src/node.js";
import { freePort, Server } from "./support/server.js";
import { createOrder, createUser, eventually, rejection } from "./support/shop.js";

const FAR = new Date("2100-01-01T00:00:00Z");
let server: Server;
/** Where the server asks for no client certificate. */
let address: string;
const clients: Client[] = [];

function path(name: string): string {
  return join(process.env["TEST_IDENTITIES"] ?? "", name);
}

function read(name: string): string {
  return readFileSync(path(name), "utf8");
}

function connect(options: Partial<NodeClientOptions>): Client {
  const client = createClient({ address, tls: { ca: read("client-ca.crt") }, ...options });
  clients.push(client);
  return client;
}

/** Return as whom the service knows a client. */
async function callerOf(client: Client): Promise<string | undefined> {
  const order = await createOrder(client, (await createUser(client)).id);
  const { events } = await client.orders.listOrderEvents({ orderId: order.id }).page();
  return events[0]?.actor;
}

before(async () => {
  const port = await freePort();
  const settings = {
    TLS_CERTIFICATE_FILE: path("tls.crt"),
    TLS_KEY_FILE: path("tls.key"),
    TLS_CLIENT_CA_FILE: path("client-ca.crt"),
    TLS_PORT_WITHOUT_CLIENT_CERTIFICATES: port,
    CLIENT_CERTIFICATES: "common_name",
    API_KEYS_FILE: path("keys"),
    JWT_ISSUERS_FILE: path("issuers.toml"),
    POLICY_FILE: path("policy.toml"),
  };
  // Other tests make all cursors of theirs invalid.
  server = await Server.start(settings, 0, process.env["TEST_ANOTHER_DATABASE"]);
  address = `127.0.0.1:${port}`;
});

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

after(() => server.kill());

test("an API key names the caller", async () => {
  assert.equal(await callerOf(connect({ credentials: { apiKey: read("api-key") } })), "key:warehouse");
});

test("a client certificate names the caller", async () => {
  const tls = { ca: read("client-ca.crt"), cert: read("client.crt"), key: readFileSync(path("client.key")) };
  assert.equal(await callerOf(connect({ address: server.address, tls })), "CN=billing");
});

test("a caller without a credential, or with a wrong one, is told so", async () => {
  const missing = await rejection(connect({}).users.listUsers({}).page());
  assert(missing instanceof UnauthenticatedCaller);
  assert.equal(missing.problem, "missing");
  const unknown = await rejection(
    connect({ credentials: { apiKey: "wrong" } })
      .users.listUsers({})
      .page(),
  );
  assert(unknown instanceof UnauthenticatedCaller);
  assert(!unknown.message.includes("wrong"));
});

test("a caller is told which permission it lacks", async () => {
  const client = connect({ credentials: { apiKey: read("reader-key") } });
  await client.users.listUsers({}).page();
  const denied = await rejection(client.orders.listOrders({}).page());
  assert(denied instanceof PermissionMissing);
  assert.equal(denied.permission, "orders.read");
});

test("a server whose certificate is not trusted gets no call", async () => {
  const client = connect({ tls: undefined, retry: { maxAttempts: 1 }, credentials: { apiKey: read("api-key") } });
  const error = await rejection(client.users.listUsers({}).page());
  assert(error instanceof CommerceError);
  assert.match(error.message, /certificate/);
});

test("a token is used until it expires or is refused", async () => {
  let asked = 0;
  const token = (): { token: string; expiresAt: Date } => {
    asked += 1;
    return { token: read(asked === 1 ? "expired.jwt" : "valid.jwt"), expiresAt: FAR };
  };
  const client = connect({ credentials: { token } });
  assert.equal(await callerOf(client), "jwt:accounts:billing");
  assert.equal(asked, 2);
});

test("the expiry that a token has itself is read, and calls together ask for one token", async () => {
  let asked = 0;
  const token = async (): Promise<string> => {
    asked += 1;
    await new Promise((resolve) => setImmediate(resolve));
    return read(asked === 1 ? "valid.jwt" : "expired.jwt");
  };
  const client = connect({ credentials: { token } });
  await Promise.all(Array.from({ length: 5 }, () => client.users.listUsers({}).page()));
  assert.equal(asked, 1);
  // This one asks for a token before each call, because its token has expired.
  const late = connect({ credentials: { token } });
  const refused = await rejection(late.users.listUsers({}).page());
  assert(refused instanceof UnauthenticatedCaller);
  assert.equal(refused.problem, "expired");
  assert.equal(asked, 3);
});

test("without a token, nothing is sent", async () => {
  const broken = new RangeError("the vault is closed");
  const client = connect({
    credentials: {
      token: () => {
        throw broken;
      },
    },
  });
  const error = await rejection(client.users.listUsers({}).page());
  assert(error instanceof CredentialsError);
  assert.deepEqual([error.outcome, error.attempts, error.cause], ["not_written", 0, broken]);
});

test("a watch continues with a new token", async () => {
  let asked = 0;
  const token = (): { token: string; expiresAt: Date } => {
    asked += 1;
    return { token: read(asked === 1 ? "expired.jwt" : "valid.jwt"), expiresAt: FAR };
  };
  const controller = new AbortController();
  const store = new MemoryCursorStore();
  const options = { signal: controller.signal, cursorStore: store };
  const watching = (async () => {
    for await (const _ of connect({ credentials: { token } }).orders.watchOrders({}, options));
  })();
  await eventually(() => store.cursor !== undefined);
  controller.abort();
  await watching;
  assert.equal(asked, 2);
});

test("a watch outlives an outage of what returns its tokens", async () => {
  let asked = 0;
  const token = (): { token: string; expiresAt: Date } => {
    asked += 1;
    if (asked === 2) throw new RangeError("the vault is closed");
    return { token: read("valid.jwt"), expiresAt: new Date() };
  };
  const controller = new AbortController();
  const errors: CommerceError[] = [];
  const options = {
    signal: controller.signal,
    // Less than the time between two checkpoints of this server, so that the watch connects again.
    stallTimeoutMs: 1_000,
    onReconnect: (error: CommerceError) => errors.push(error),
    cursorStore: {
      load: () => undefined,
      save: () => {
        if (asked > 2) controller.abort();
      },
    },
  };
  for await (const _ of connect({ credentials: { token } }).users.watchUsers({}, options)) {
    // Tests that run beside this one may change users.
  }
  assert.deepEqual(
    errors.map(({ name }) => name),
    ["ClientTimeout", "CredentialsError"],
  );
});

test("credentials are not sent to another machine in plaintext", () => {
  const credentials = { apiKey: "k" };
  assert.throws(() => createClient({ address: "commerce.internal:50051", tls: false, credentials }), /plaintext/);
  createClient({ address: "localhost:50051", tls: false, credentials });
  createClient({ address: "[::1]:50051", tls: false, credentials });
});

test("an address is a host and a port", () => {
  for (const wrong of ["", "http://localhost:50051", "localhost:50051/path", "local host"]) {
    assert.throws(() => createClient({ address: wrong, tls: false }), TypeError, wrong);
  }
});
