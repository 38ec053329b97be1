/** Amounts as `google.type.Money` in JSON: `{currencyCode: "EUR", units: "12", nanos: 500000000}`. All exact. */

import { h } from "./dom.js";

/** Return an amount as a decimal number: `12.5`, or `-0.05`. */
export function decimal({ units = "0", nanos = 0 }) {
  const isNegative = String(units).startsWith("-") || nanos < 0;
  const fraction = String(Math.abs(nanos)).padStart(9, "0").replace(/0+$/, "");
  const whole = String(units).replace("-", "");
  return `${isNegative ? "-" : ""}${whole}${fraction ? `.${fraction}` : ""}`;
}

/** Return an amount for people, with its currency: `€12.50`. */
export function formatMoney(money) {
  if (!money?.currencyCode) {
    return "–";
  }
  const number = decimal(money);
  try {
    // With more digits than the currency has, if the amount has.
    const format = new Intl.NumberFormat(undefined, { style: "currency", currency: money.currencyCode });
    const digits = Math.max(format.resolvedOptions().minimumFractionDigits, (number.split(".")[1] ?? "").length);
    return new Intl.NumberFormat(undefined, {
      style: "currency",
      currency: money.currencyCode,
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }).format(number);
  } catch (error) {
    if (!(error instanceof RangeError)) {
      throw error;
    }
    // The currency is none.
    return `${number} ${money.currencyCode}`;
  }
}

/** Return an element with an amount, whose title has the currency's code. */
export function moneyElement(money) {
  return money?.currencyCode
    ? h("span.money", { title: `${decimal(money)} ${money.currencyCode}` }, formatMoney(money))
    : h("span.quiet", null, "–");
}

/** Return an amount, given a decimal number as text (`12.50`) and a currency; null if the text is no such number. */
export function parseMoney(text, currencyCode) {
  const found = /^\s*(-?)(\d{1,18})(?:[.,](\d{1,9}))?\s*$/.exec(text);
  if (!found) {
    return null;
  }
  const [, sign, whole, fraction = ""] = found;
  const units = `${sign}${whole.replace(/^0+(?=\d)/, "")}`;
  const nanos = Number(fraction.padEnd(9, "0"));
  return {
    currencyCode: currencyCode.trim().toUpperCase(),
    units: units === "-0" ? "0" : units,
    ...(nanos ? { nanos: sign ? -nanos : nanos } : {}),
  };
}
