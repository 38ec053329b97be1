import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { NEEDS_SERVICE } from "./server.js";

/** Delete all events, as the service does with old ones; returns their number. */
export async function deleteEvents(): Promise<number> {
  const call = "await delete_expired_events(engine, timedelta(0))";
  return Number(await onDatabase("from service.db.operations.retention import delete_expired_events", call));
}

/** Make the cursors of all watches invalid, as after a restore of the database from a backup. */
export async function restoreEvents(): Promise<void> {
  await onDatabase("from service.db.operations.restored_events import restore_events", "await restore_events(engine)");
}

/** Run an operation of the service on the database in `DATABASE_URL`, and return its result as text. */
async function onDatabase(imported: string, call: string): Promise<string> {
  const program = process.env["TEST_PYTHON"];
  if (program === undefined) throw new Error(NEEDS_SERVICE);
  const script = `
import asyncio
from datetime import timedelta
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
${imported}

async def main():
    engine = create_engine(load(DatabaseSettings), pool_size=1)
    print(${call})
    await engine.dispose()

asyncio.run(main())
`;
  const { stdout } = await promisify(execFile)(program, ["-c", script]);
  return stdout;
}
