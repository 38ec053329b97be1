import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/** A TCP proxy in front of a server, which can lose what the server answers. */
export class TcpProxy {
  readonly #listener: Server;
  readonly #sockets = new Set<Socket>();
  /** How many of the next connections break as soon as the server has answered `loseAfterBytes`. */
  lostAnswers = 0;
  /** Whether nothing that the server sends is passed on. */
  silent = false;
  connections = 0;

  private constructor(listener: Server) {
    this.#listener = listener;
  }

  /** Listen on a free port, for connections to an address of this machine. */
  static async start(target: string): Promise<TcpProxy> {
    const listener = createServer();
    const proxy = new TcpProxy(listener);
    listener.on("connection", (client) => {
      proxy.#forward(client, target);
    });
    listener.listen(0, "127.0.0.1");
    await once(listener, "listening");
    return proxy;
  }

  get address(): string {
    const address = this.#listener.address();
    if (address === null || typeof address === "string") throw new Error("not listening");
    return `127.0.0.1:${address.port}`;
  }

  /** Break all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.#listener.close();
  }

  #forward(client: Socket, target: string): void {
    this.connections += 1;
    const server = connect(Number(target.split(":")[1]), "127.0.0.1");
    const end = (): void => {
      client.destroy();
      server.destroy();
      this.#sockets.delete(client);
    };
    this.#sockets.add(client);
    client.on("error", end).on("close", end);
    server.on("error", end).on("close", end);
    client.on("data", (bytes: Buffer) => server.write(bytes));
    server.on("data", (bytes: Buffer) => {
      if (this.silent) return;
      if (this.lostAnswers > 0 && hasResponse(bytes)) {
        this.lostAnswers -= 1;
        end();
        return;
      }
      client.write(bytes);
    });
  }
}

/** Whether bytes of a server have a HEADERS frame (RFC 9113, 6.2), with which each response begins. */
function hasResponse(bytes: Buffer): boolean {
  for (let start = 0; start + 9 <= bytes.length; start += 9 + bytes.readUIntBE(start, 3)) {
    if (bytes[start + 3] === 1) return true;
  }
  return false;
}
