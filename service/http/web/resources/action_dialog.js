/**
 * The dialog of an action: it checks first (`validate_only`), says what will happen, and then does it.
 *
 * The request id is made once for each dialog. So a request whose outcome is unknown is repeated with the same id and
 * happens once. After the resource was changed by someone else, nothing is sent again until it was read again.
 */

import { h, replace, uniqueId } from "../lib/dom.js";
import { concerns } from "../lib/failures.js";
import { announce, openDialog, toast } from "../lib/feedback.js";
import { newRequestId } from "../lib/request_ids.js";
import { call } from "../lib/rpc.js";
import { button, errorPanel, loading, notice } from "../lib/ui.js";
import { control, FieldProblem } from "./controls.js";

// Longer than the deadline of the service, so that its answer comes first.
const GIVE_UP_MS = 40_000;
// Someone else has changed the resource since it was read: what it did not allow then is not offered.
const CHANGED = new Set(["ETAG_MISMATCH", "ILLEGAL_TRANSITION", "ORDER_NOT_PENDING"]);
// As in the Python client: an answer about the state, which the server gives only if no attempt was written. Any other
// refusal of a repeat, such as a missing permission, says nothing about the first attempt.
const CONCLUSIVE_CODES = new Set(["NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"]);

function isConclusive({ code, reason }) {
  return CONCLUSIVE_CODES.has(code) || reason === "ETAG_MISMATCH";
}

/**
 * Open the dialog of an action.
 *
 * @param {object} options
 * @param {object} options.action see `actions_of_orders.js`
 * @param {() => Promise<object | null>} [options.reload] reads the resource again, and returns the action for it; null if
 *   the action is not possible any more
 * @param {AbortSignal} signal closes the dialog when the user leaves the view
 * @returns {Promise<{response: object} | {changed: true} | null>} resolves when it is closed: with the response; with
 *   `changed` if something may have happened; with null otherwise
 */
export function openAction({ action, reload, signal }) {
  return new ActionDialog(action, reload, signal).result();
}

class ActionDialog {
  constructor(action, reload, signal) {
    this.reload = reload;
    this.requestId = newRequestId();
    this.leaving = new AbortController();
    this.report = h("div.action-report", { role: "status", "aria-live": "polite" });
    this.fields = h("fieldset.plain", { oninput: () => this.edited() });
    this.confirmation = h("div");
    // They stay the same elements, so that none loses the focus.
    this.closeButton = button({ label: "Close", onclick: () => this.isBusy || this.dialog.close() });
    this.primaryButton = button({ label: "Check", kind: "primary", type: "submit" });
    // Whether something may have been written although no response came.
    this.isUncertain = false;
    this.isBusy = false;
    // Whether the resource has changed, so that it must be read again.
    this.isStale = false;
    this.isConfirmed = () => true;
    this.use(action);
    this.dialog = openDialog({
      title: action.title,
      wide: action.fields.some(({ kind }) => kind === "items"),
      body: [this.fields, this.report, this.confirmation],
      onSubmit: () => this.submit(),
      actions: () => [this.closeButton, this.primaryButton],
      // Closing it would leave the outcome unknown.
      mayClose: () => !this.isBusy,
    });
    signal.addEventListener("abort", () => this.dialog.close(), { signal: this.leaving.signal });
    this.showButtons();
    (this.fields.querySelector("input, textarea") ?? this.primaryButton).focus();
    // Without fields there is nothing to wait for.
    if (!action.fields.length) {
      this.check();
    }
  }

  async result() {
    const response = await this.dialog.closed;
    this.leaving.abort();
    if (response) {
      const { done } = this.action;
      toast(typeof done === "function" ? done(response) : done, { kind: "good" });
      return { response };
    }
    return this.isUncertain || this.isSending || this.hasReloaded ? { changed: true } : null;
  }

  /** Take over an action, with new controls. */
  use(action) {
    this.action = action;
    this.checked = null;
    this.controls = action.fields.map((field) => control(field, this.leaving.signal));
    replace(
      this.fields,
      action.intro && h("p", null, action.intro),
      this.controls.map(({ element }) => element),
    );
    this.fields.hidden = !action.fields.length && !action.intro;
  }

  edited() {
    if (this.checked && !this.isUncertain) {
      this.checked = null;
      replace(this.report);
      replace(this.confirmation);
      this.showButtons();
    }
  }

  submit() {
    if (this.isBusy || this.isImpossible) {
      return;
    }
    if (this.isStale) {
      this.startAnew();
    } else if (this.checked) {
      this.send();
    } else {
      this.check();
    }
  }

  /** Check the request without writing anything, and say what it would do. */
  async check() {
    await this.busy("Checking …", async () => {
      for (const { clear } of this.controls) {
        clear();
      }
      const values = await this.values();
      const mask = this.action.changed?.(values);
      // The server takes an empty mask for "all fields that are set".
      if (mask && !mask.length) {
        replace(this.report, notice("info", "Nothing is changed yet."));
        return;
      }
      const request = this.action.request(values, mask);
      const response = await call(this.action.method, { ...request, validateOnly: true }, this.options());
      this.checked = request;
      this.showEffects(this.action.effects(response, values));
    });
  }

  async values() {
    const values = {};
    const violations = [];
    for (const { name, read } of this.controls) {
      try {
        values[name] = await read();
      } catch (error) {
        if (!(error instanceof FieldProblem)) {
          throw error;
        }
        violations.push(...error.violations);
      }
    }
    if (violations.length) {
      throw new FieldProblem(violations);
    }
    return values;
  }

  showEffects(effects) {
    const { warning, confirmWord } = this.action;
    replace(
      this.report,
      h(
        "div.effects",
        null,
        h("h3", null, "This will happen"),
        h(
          "ul",
          null,
          effects.map((line) => h("li", null, line)),
        ),
      ),
    );
    replace(
      this.confirmation,
      warning && notice("warn", h("strong", null, "This cannot be undone. "), warning),
      warning && this.confirmationInput(confirmWord),
    );
    if (!warning) {
      this.isConfirmed = () => true;
    }
  }

  confirmationInput(word) {
    if (word) {
      const id = uniqueId("confirm");
      const input = h("input", { id, type: "text", autocomplete: "off", spellcheck: "false" });
      this.isConfirmed = () => input.value.trim() === word;
      return h("div.field", null, h("label", { for: id }, "Type ", h("strong", null, word), " to confirm"), input);
    }
    const input = h("input", { type: "checkbox" });
    this.isConfirmed = () => input.checked;
    return h("label.check", null, input, "I understand that this cannot be undone");
  }

  /** Do it. */
  async send() {
    if (!this.isConfirmed()) {
      announce("Confirm first that this cannot be undone");
      this.confirmation.querySelector("input").focus();
      return;
    }
    await this.busy("Sending …", async () => {
      this.isSending = true;
      const response = await call(this.action.method, { ...this.checked, requestId: this.requestId }, this.options());
      this.dialog.close(response);
    });
  }

  options() {
    return { signal: AbortSignal.any([this.leaving.signal, AbortSignal.timeout(GIVE_UP_MS)]) };
  }

  async busy(text, work) {
    this.isBusy = true;
    replace(this.report, loading(text));
    this.showButtons();
    try {
      await work();
    } catch (error) {
      if (!this.leaving.signal.aborted) {
        this.showError(error);
      }
    } finally {
      this.isBusy = false;
      this.isSending = false;
      this.showButtons();
      this.footerIntoView();
    }
  }

  showError(error) {
    const isUnknown = error.outcome === "unknown" || error.name === "TimeoutError";
    if (this.isSending && (isUnknown || (this.isUncertain && !isConclusive(error)))) {
      this.showUncertain(error);
    } else if (this.reload && CHANGED.has(error.reason)) {
      this.showChanged(error);
    } else {
      this.isUncertain = false;
      const violations = error.violations ?? [];
      if (violations.length) {
        this.checked = null;
        replace(this.confirmation);
      }
      const isAtFields = violations.length > 0 && this.showViolations(violations);
      replace(
        this.report,
        isAtFields ? notice("bad", "See what is wrong above. Nothing was written.") : errorPanel(error, { level: 3 }),
      );
    }
  }

  /** Mark the fields that are wrong, and go to the first one; returns whether each violation is about a field. */
  showViolations(violations) {
    for (const { path, show } of this.controls) {
      const own = violations.filter((violation) => concerns(violation, path));
      if (own.length) {
        show(own);
      }
    }
    // The fieldset is disabled until the call has ended.
    setTimeout(() => this.fields.querySelector("[aria-invalid]")?.focus());
    return violations.every((violation) => this.controls.some(({ path }) => concerns(violation, path)));
  }

  showUncertain(error) {
    this.isUncertain = true;
    replace(
      this.report,
      notice(
        "warn",
        h("strong", null, "It is not known whether it happened. "),
        "Repeat the request: it has the same request id, so it happens only once, also if it has happened already.",
        h("p", null, "Request id ", h("code", null, this.requestId)),
      ),
      error.name === "CallError" && h("p.quiet", null, error.message),
    );
  }

  showChanged(error) {
    this.isStale = true;
    this.isUncertain = false;
    replace(
      this.report,
      notice(
        "warn",
        h("strong", null, "Changed by someone else: reload. "),
        `Nothing was written. ${sentence(error.message)}`,
      ),
    );
  }

  /** Read the resource again, and begin anew with what was entered. */
  async startAnew() {
    let next;
    await this.busy("Reading again …", async () => {
      next = await this.reload();
      this.hasReloaded = true;
      this.isStale = false;
      this.requestId = newRequestId();
      if (!next) {
        this.isStale = true;
        this.isImpossible = true;
        replace(this.report, notice("info", "It is not possible any more. Close this to see why."));
        return;
      }
      this.keepEntered(next);
      replace(this.confirmation);
      replace(this.report, notice("info", "This is about the current version now. Check again."));
    });
    if (next && !next.fields.length) {
      this.check();
    }
  }

  /**
   * Take over the action for the new version; the controls keep what the user entered. What the user has changed is what
   * differs from the version that the form was filled from: the rest is old, and would undo the other change.
   */
  keepEntered(next) {
    this.action = { ...next, changed: this.action.changed };
    this.checked = null;
  }

  /** What has been reported is above the buttons, and may be below the end of the window. */
  footerIntoView() {
    if (!this.fields.querySelector("[aria-invalid]")) {
      (this.confirmation.hasChildNodes() ? this.confirmation : this.report).scrollIntoView({ block: "nearest" });
    }
  }

  showButtons() {
    const { submit, warning } = this.action;
    this.fields.disabled = this.isBusy || this.isUncertain;
    this.closeButton.setAttribute("aria-disabled", String(this.isBusy));
    const [label, kind] = this.isStale
      ? ["Reload", "primary"]
      : !this.checked
        ? ["Check", "primary"]
        : [this.isUncertain ? "Repeat the request" : submit, warning ? "danger" : "primary"];
    this.primaryButton.hidden = Boolean(this.isImpossible);
    this.primaryButton.setAttribute("aria-disabled", String(this.isBusy));
    this.primaryButton.classList.toggle("danger", kind === "danger");
    this.primaryButton.classList.toggle("primary", kind === "primary");
    this.primaryButton.querySelector("span").textContent = label;
  }
}

function sentence(text) {
  const begin = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begin) ? begin : `${begin}.`;
}
