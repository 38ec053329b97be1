/**
 * Stores how far a watch has been processed. A watch loads the cursor when it starts, and saves the cursor of an event
 * when the next one is asked for, which means that it has been handled: so each event is handled at least once.
 */
export interface CursorStore {
  /** Return the last saved cursor, or undefined if there is none. */
  load(): string | undefined | Promise<string | undefined>;
  /** Replace the saved cursor. */
  save(cursor: string): void | Promise<void>;
}

/** Keeps the cursor as long as the object exists. */
export class MemoryCursorStore implements CursorStore {
  /** The last saved cursor. */
  cursor: string | undefined;

  constructor(cursor?: string) {
    this.cursor = cursor;
  }

  load(): string | undefined {
    return this.cursor;
  }

  save(cursor: string): void {
    this.cursor = cursor;
  }
}
