import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import {
  addMoney,
  compareMoney,
  deriveRequestId,
  money,
  moneyAmount,
  moneyNanos,
  multiplyMoney,
  subtractMoney,
} from "../src/index.js";
import { RetryBudget } from "../src/retry_policy.js";
import { LinkedSignal } from "../src/waiting.js";

test("money is exact", () => {
  const tenth = money("0.10", "EUR");
  assert.deepEqual([tenth.currencyCode, tenth.units, tenth.nanos], ["EUR", 0n, 100_000_000]);
  assert.equal(moneyAmount(addMoney(tenth, money("0.20", "EUR"))), "0.30");
  assert.equal(moneyAmount(multiplyMoney(money("9007199254740993.01", "USD"), 3n)), "27021597764222979.03");
  assert.equal(moneyAmount(subtractMoney(money("1", "EUR"), money("1.01", "EUR"))), "-0.01");
  assert.equal(moneyAmount(money("9223372036854775807.999999999", "EUR")), "9223372036854775807.999999999");
});

test("negative amounts have both parts negative", () => {
  const debt = money("-1.5", "EUR");
  assert.deepEqual([debt.units, debt.nanos, moneyNanos(debt)], [-1n, -500_000_000, -1_500_000_000n]);
  assert.equal(moneyAmount(debt), "-1.50");
  assert.equal(moneyAmount(money("-0.000000001", "EUR")), "-0.000000001");
});

test("amounts are written with at least as many places as asked for", () => {
  assert.deepEqual(
    [moneyAmount(money(5n, "EUR")), moneyAmount(money("5", "JPY"), 0), moneyAmount(money("1.234", "TND"), 3)],
    ["5.00", "5", "1.234"],
  );
});

test("amounts are compared and added only in one currency", () => {
  assert.deepEqual(
    ["1", "2", "3"].map((amount) => compareMoney(money(amount, "EUR"), money("2.00", "EUR"))),
    [-1, 0, 1],
  );
  assert.throws(() => addMoney(money("1", "EUR"), money("1", "USD")), TypeError);
  assert.throws(() => compareMoney(money("1", "EUR"), money("1", "USD")), /EUR and USD/);
});

test("what is no exact amount is refused", () => {
  for (const amount of ["", "1,5", "1.", ".5", "1e3", "0.0000000001", " 1", "NaN", 0.1, null]) {
    assert.throws(() => money(amount as string, "EUR"), TypeError, String(amount));
  }
  assert.throws(() => money("9223372036854775808", "EUR"), RangeError);
  assert.throws(() => multiplyMoney(money("1", "EUR"), 1.5), RangeError);
});

test("a derived requestId is the same in every language", async () => {
  // The tests of the Python client check the same file.
  const file = await readFile(new URL("../../../request_ids.json", import.meta.url), "utf8");
  const examples = JSON.parse(file) as { parts: (string | number)[]; requestId: string }[];
  assert(examples.length > 10);
  for (const { parts, requestId } of examples) assert.equal(await deriveRequestId(...parts), requestId);
  assert.equal(await deriveRequestId("job", 17n), await deriveRequestId("job", "17"));
});

test("a derived requestId needs parts that are exact", async () => {
  await assert.rejects(deriveRequestId(), TypeError);
  for (const part of [0.5, 1e21, Number.NaN]) await assert.rejects(deriveRequestId("job", part), /not exact/);
});

test("the retry budget delays what is beyond it", () => {
  let now = 0;
  const budget = new RetryBudget({ burst: 2, perSecond: 10, perSuccess: 0.5 }, () => now);
  const take = (): number => {
    const wait = budget.wait();
    budget.take();
    return wait;
  };
  assert.deepEqual([take(), take(), take(), take()], [0, 0, 100, 200]);
  now = 300;
  assert.equal(take(), 0);
  budget.succeeded();
  budget.succeeded();
  assert.equal(take(), 0);
  now = 1_000_000;
  assert.deepEqual([take(), take(), take()], [0, 0, 100]);
});

test("a linked signal aborts with any of its sources, and leaves nothing behind", () => {
  const [first, second] = [new AbortController(), new AbortController()];
  const linked = new LinkedSignal(first.signal, undefined, second.signal);
  second.abort("second");
  assert.equal(linked.signal.reason, "second");
  assert.equal(new LinkedSignal(second.signal).signal.reason, "second");
  const other = new LinkedSignal(first.signal);
  other.unlink();
  first.abort("first");
  assert.equal(other.signal.aborted, false);
});
