export { Code, type Transport } from "@connectrpc/connect";
export { type Client, createClient, type ServiceClient } from "./client.js";
export type { Credentials, Token } from "./credentials.js";
export { type CursorStore, MemoryCursorStore } from "./cursor_stores.js";
export * from "./errors.js";
export type { ExportOptions } from "./exports.js";
export type { ImportOptions, ImportRow } from "./imports.js";
export {
  addMoney,
  compareMoney,
  type Money,
  type MoneyLike,
  MoneySchema,
  money,
  moneyAmount,
  moneyNanos,
  multiplyMoney,
  subtractMoney,
} from "./money.js";
export type { CallOptions, ClientOptions } from "./options.js";
export { type ItemOf, Pages } from "./pages.js";
export * from "./reasons.js";
export { deriveRequestId } from "./request_ids.js";
export type { RetryBudgetOptions, RetryPolicy } from "./retry_policy.js";
export type { Watched, WatchOptions } from "./watch.js";
