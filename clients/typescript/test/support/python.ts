import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { NEEDS_SERVICE } from "./server.js";

/** Run Python with the packages of the service, and return what it prints. */
export async function python(...args: string[]): Promise<string> {
  const program = process.env["TEST_PYTHON"];
  if (program === undefined) throw new Error(NEEDS_SERVICE);
  const { stdout } = await promisify(execFile)(program, args);
  return stdout;
}

const DELETE_EVENTS = `
import asyncio
from datetime import timedelta
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.retention import delete_expired_events

async def main():
    engine = create_engine(load(DatabaseSettings), pool_size=1)
    print(await delete_expired_events(engine, timedelta(0)))
    await engine.dispose()

asyncio.run(main())
`;

/** Delete all events, as the service does with old ones; returns their number. */
export async function deleteEvents(): Promise<number> {
  return Number(await python("-c", DELETE_EVENTS));
}
