import { create } from "@bufbuild/protobuf";
import { type Money, MoneySchema } from "./gen/google/type/money_pb.js";

export { type Money, MoneySchema };

/** Nanos, the smallest parts that `google.type.Money` can express, in one unit of a currency. */
const NANOS = 1_000_000_000n;
const MAX_UNITS = 2n ** 63n - 1n;
const DECIMAL = /^([+-]?)(\d+)(?:\.(\d{1,9}))?$/;

/** What the helpers need of a `google.type.Money`. */
export type MoneyLike = Pick<Money, "currencyCode" | "units" | "nanos">;

/**
 * Return an amount of money, exactly.
 *
 *     money("10.50", "EUR")
 *
 * @param amount - A decimal number with at most nine places as a string, or whole units as a bigint. A `number` is
 *   refused: 0.1 + 0.2 is not 0.3.
 * @param currencyCode - ISO 4217, for example `EUR`. The service knows how many decimal places a currency has.
 * @throws TypeError: the amount is no such string or bigint. RangeError: it is too large.
 */
export function money(amount: string | bigint, currencyCode: string): Money {
  if (typeof amount === "bigint") return fromNanos(amount * NANOS, currencyCode);
  const [, sign, units, decimals] = (typeof amount === "string" ? DECIMAL.exec(amount) : null) ?? [];
  if (units === undefined) {
    throw new TypeError(`an amount is a bigint or a string such as "10.50", not ${JSON.stringify(amount)}`);
  }
  const nanos = BigInt(units) * NANOS + BigInt((decimals ?? "").padEnd(9, "0"));
  return fromNanos(sign === "-" ? -nanos : nanos, currencyCode);
}

/**
 * Return an amount as a decimal number: `10.50`.
 *
 * @param value - The amount.
 * @param places - How many decimal places to write at least.
 */
export function moneyAmount(value: MoneyLike, places = 2): string {
  const nanos = moneyNanos(value);
  const size = nanos < 0n ? -nanos : nanos;
  const decimals = (size % NANOS).toString().padStart(9, "0").replace(/0+$/, "").padEnd(places, "0");
  return `${nanos < 0n ? "-" : ""}${size / NANOS}${decimals === "" ? "" : `.${decimals}`}`;
}

/** Return an amount in billionths of a unit, with which one can calculate exactly. */
export function moneyNanos(value: MoneyLike): bigint {
  return value.units * NANOS + BigInt(value.nanos);
}

/** Return the sum of amounts in one currency. */
export function addMoney(first: MoneyLike, ...others: readonly MoneyLike[]): Money {
  const nanos = others.reduce((sum, other) => sum + sameCurrency(first, other), moneyNanos(first));
  return fromNanos(nanos, first.currencyCode);
}

/** Return an amount less another one. */
export function subtractMoney(from: MoneyLike, amount: MoneyLike): Money {
  return fromNanos(moneyNanos(from) - sameCurrency(from, amount), from.currencyCode);
}

/**
 * Return a multiple of an amount.
 *
 * @param times - A whole number, for example the quantity of an item.
 */
export function multiplyMoney(value: MoneyLike, times: bigint | number): Money {
  // BigInt() throws a RangeError for a number with a fraction.
  return fromNanos(moneyNanos(value) * BigInt(times), value.currencyCode);
}

/** Return a number below, equal to or above 0 if an amount is less than, equal to or more than another one. */
export function compareMoney(first: MoneyLike, second: MoneyLike): -1 | 0 | 1 {
  const difference = moneyNanos(first) - sameCurrency(first, second);
  if (difference === 0n) return 0;
  return difference < 0n ? -1 : 1;
}

function sameCurrency(first: MoneyLike, other: MoneyLike): bigint {
  if (other.currencyCode !== first.currencyCode) {
    throw new TypeError(`amounts of ${first.currencyCode} and ${other.currencyCode} cannot be combined`);
  }
  return moneyNanos(other);
}

function fromNanos(nanos: bigint, currencyCode: string): Money {
  const units = nanos / NANOS;
  if (units > MAX_UNITS || units < -MAX_UNITS - 1n) throw new RangeError("the amount is too large for Money");
  // Both have the same sign: bigint division rounds towards zero.
  return create(MoneySchema, { currencyCode, units, nanos: Number(nanos % NANOS) });
}
