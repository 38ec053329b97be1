/** Sums of exact amounts (`google.type.Money` in JSON), computed with BigInt and never with floating-point numbers. */

import { decimal } from "../lib/money.js";

const NANOS = 1_000_000_000n;

/** Return an amount in nanos. */
export function nanosOf(money) {
  return BigInt(money?.units ?? 0) * NANOS + BigInt(money?.nanos ?? 0);
}

/** Return an amount in nanos as money. */
export function moneyOf(nanos, currencyCode) {
  const rest = Number(nanos % NANOS);
  return { currencyCode, units: (nanos / NANOS).toString(), ...(rest ? { nanos: rest } : {}) };
}

/** Return what some items cost together; all have the same currency. */
export function totalOf(items, currencyCode) {
  return moneyOf(
    items.reduce((sum, { quantity, unitPrice }) => sum + BigInt(quantity) * nanosOf(unitPrice), 0n),
    currencyCode,
  );
}

/** Return an amount as the text of an input, with as many decimals as people write in its currency: `10.50`. */
export function inputText(money) {
  const [whole, fraction = ""] = decimal(money).split(".");
  const format = new Intl.NumberFormat("en", { style: "currency", currency: money.currencyCode });
  const digits = format.resolvedOptions().minimumFractionDigits;
  const padded = fraction.padEnd(digits, "0");
  return padded ? `${whole}.${padded}` : whole;
}
