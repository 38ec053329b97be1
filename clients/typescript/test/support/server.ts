import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";

export const NEEDS_SERVICE = "these tests need the service: run `make tests T=tests/clients`";

/** Servers that still run; they end with this process. */
const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** Settings of a server that stops soon, and asks its clients every second to connect again. */
export const STOPS_SOON = { MAX_CONNECTION_AGE: 1, SHUTDOWN_GRACE: 1 };

/** The service as a process of its own, on the database in `DATABASE_URL`. */
export class Server {
  readonly port: number;
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess, port: number) {
    this.#process = child;
    this.port = port;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /**
   * Start a server, and wait until it serves.
   *
   * @param settings - Settings in capitals, without `COMMERCE_`.
   * @param databaseUrl - Its database, if it is not that of the other servers.
   */
  static async start(
    settings: Record<string, string | number> = {},
    port = 0,
    databaseUrl = process.env["DATABASE_URL"],
  ): Promise<Server> {
    const python = process.env["TEST_PYTHON"];
    if (python === undefined) throw new Error(NEEDS_SERVICE);
    const variables = Object.entries(settings).map(([name, value]) => [`COMMERCE_${name}`, String(value)]);
    const child = spawn(python, ["-m", "service", "serve", "--port", String(port)], {
      env: { ...process.env, DATABASE_URL: databaseUrl, ...Object.fromEntries(variables) },
      stdio: ["ignore", "ignore", "pipe"],
    });
    running.add(child);
    child.on("exit", () => running.delete(child));
    const written: string[] = [];
    for await (const line of createInterface({ input: child.stderr })) {
      written.push(line);
      const fields = line.startsWith("{") ? (JSON.parse(line) as { event: string; port: number }) : undefined;
      if (fields?.event !== "serving") continue;
      // Nobody reads the log from now on, and a full pipe would stop the server.
      child.stderr.resume();
      return new Server(child, fields.port);
    }
    throw new Error(`the server did not start:\n${written.join("\n")}`);
  }

  /** Kill it, as a crash does. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** Stop it, as a deployment does. */
  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, "exit");
    this.#process.kill(signal);
    await ended;
  }
}

/** Return the address of the server that all tests share, with a checkpoint of watches every 0.1 seconds. */
export function sharedAddress(): string {
  const address = process.env["TEST_ADDRESS"];
  if (address === undefined) throw new Error(NEEDS_SERVICE);
  return address;
}

/** Return a port on which nothing listens. */
export async function freePort(): Promise<number> {
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  listener.close();
  await once(listener, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
