/** The items of an order: a row for each, with the total of all. */

import { h, icon, replace, uniqueId } from "../lib/dom.js";
import { concerns } from "../lib/failures.js";
import { formatMoney, parseMoney } from "../lib/money.js";
import { inputText, totalOf } from "./amounts.js";
import { currencyInput, FieldProblem } from "./controls.js";

const COLUMNS = [
  { key: "productId", proto: "product_id", label: "Product", inputmode: "text", size: 12 },
  { key: "name", proto: "name", label: "Name", inputmode: "text", size: 24 },
  { key: "quantity", proto: "quantity", label: "Quantity", inputmode: "numeric", size: 5 },
  { key: "unitPrice", proto: "unit_price", label: "Unit price", inputmode: "decimal", size: 9 },
];

/** Return the control of a field of kind `items`. */
export function itemsEditor(field) {
  const currency = currencyInput(field.value[0]?.unitPrice?.currencyCode);
  currency.input.setAttribute("aria-label", "Currency of all prices");
  const list = h("ol.items-editor");
  const total = h("output.items-total", { "aria-live": "polite" });
  const error = h("div.field-error", { hidden: true });
  const rows = [];

  function add(item) {
    const row = itemRow(item, () => {
      rows.splice(rows.indexOf(row), 1);
      row.element.remove();
      number();
      (rows.at(-1)?.inputs.productId ?? addButton).focus();
      element.dispatchEvent(new Event("input", { bubbles: true }));
    });
    rows.push(row);
    list.append(row.element);
    number();
    return row;
  }

  function number() {
    for (const [index, row] of rows.entries()) row.setNumber(index + 1, rows.length);
    showTotal();
  }

  function showTotal() {
    const items = rows.map((row) => row.parsed(currency.input.value));
    const isComplete = items.length && items.every((item) => item.unitPrice && Number.isInteger(item.quantity));
    replace(total, isComplete ? `Total ${formatMoney(totalOf(items, currency.input.value.toUpperCase()))}` : "");
  }

  const addButton = h(
    "button.button",
    { type: "button", onclick: () => add(null).inputs.productId.focus() },
    icon("plus"),
    "Add item",
  );
  const element = h(
    "fieldset.field.items",
    { oninput: showTotal },
    h("legend", null, field.label),
    h("label.inline", null, "Currency ", currency.input, currency.list),
    list,
    h("div.items-foot", null, addButton, total),
    error,
  );
  for (const item of field.value.length ? field.value : [null]) add(item);

  return {
    element,
    read: () => {
      const items = rows.map((row) => row.parsed(currency.input.value));
      const violations = items.flatMap((item, index) => localViolations(item, `${field.path}[${index}]`));
      if (violations.length) throw new FieldProblem(violations);
      return items;
    },
    show: (violations) => {
      for (const violation of violations) {
        const found = rows.some((row, index) => row.show(violation, `${field.path}[${index}]`));
        if (!found) {
          error.hidden = false;
          error.textContent = violation.description;
        }
      }
    },
    clear: () => {
      error.hidden = true;
      for (const row of rows) row.clear();
    },
  };
}

// What cannot be written as JSON of this type; all other rules are the service's.
function localViolations({ quantity, unitPrice }, path) {
  return [
    ...(Number.isInteger(quantity) ? [] : [{ field: `${path}.quantity`, description: "must be a whole number" }]),
    ...(unitPrice ? [] : [{ field: `${path}.unit_price`, description: "must be an amount such as 10.50" }]),
  ];
}

function itemRow(item, onRemove) {
  const values = {
    productId: item?.productId ?? "",
    name: item?.name ?? "",
    quantity: item ? String(item.quantity) : "1",
    unitPrice: item?.unitPrice ? inputText(item.unitPrice) : "",
  };
  const inputs = {};
  const errors = {};
  const cells = COLUMNS.map(({ key, label, inputmode, size }) => {
    const id = uniqueId("item");
    errors[key] = h("div.field-error", { id: `${id}-error`, hidden: true });
    inputs[key] = h("input", {
      id,
      type: "text",
      inputmode,
      size,
      value: values[key],
      autocomplete: "off",
      "aria-describedby": `${id}-error`,
    });
    return h(`div.item-cell.item-${key.toLowerCase()}`, null, h("label", { for: id }, label), inputs[key], errors[key]);
  });
  const remove = h("button.button.icon-only", { type: "button", onclick: onRemove }, icon("trash"));
  const element = h("li.item-row", null, cells, remove);

  return {
    element,
    inputs,
    setNumber: (index, count) => {
      remove.setAttribute("aria-label", `Remove item ${index}`);
      remove.title = `Remove item ${index}`;
      remove.disabled = count === 1;
    },
    parsed: (currencyCode) => ({
      productId: inputs.productId.value,
      name: inputs.name.value,
      quantity: /^\s*\d{1,9}\s*$/.test(inputs.quantity.value) ? Number(inputs.quantity.value) : null,
      unitPrice: parseMoney(inputs.unitPrice.value, currencyCode),
    }),
    /** Mark what a violation is about; returns false if it is about something else. */
    show: (violation, path) => {
      if (!concerns(violation, path)) return false;
      const column = COLUMNS.find(({ proto }) => concerns(violation, `${path}.${proto}`)) ?? COLUMNS[0];
      errors[column.key].hidden = false;
      errors[column.key].textContent = violation.description;
      inputs[column.key].setAttribute("aria-invalid", "true");
      return true;
    },
    clear: () => {
      for (const { key } of COLUMNS) {
        errors[key].hidden = true;
        inputs[key].removeAttribute("aria-invalid");
      }
    },
  };
}
