/** The view of one user, with credit, orders and notes. */

import { h, replace } from "../lib/dom.js";
import { toast } from "../lib/feedback.js";
import { href, navigate, setQuery } from "../lib/router.js";
import { call } from "../lib/rpc.js";
import { timeElement } from "../lib/time.js";
import { badge, card, copyButton, definitions, emptyState, pageHeader } from "../lib/ui.js";
import { openAction } from "./action_dialog.js";
import { userAction } from "./actions_of_users.js";
import { creditCard } from "./credit_card.js";
import { methodOfUser, orders } from "./methods.js";
import { workView } from "./navigation.js";
import { notesCard } from "./notes_card.js";
import { ordersTable } from "./orders_view.js";
import { actionButtons, loaded, statusBadge } from "./parts.js";
import { remember } from "./references.js";
import { stateOf, userActions } from "./user_actions.js";
import { userKey } from "./user_picker.js";

const LATEST_ORDERS = 10;

/** The view. Its address names the user by id, username or e-mail address. */
export default workView("users", async ({ params, query, signal, setTitle }) => {
  const key = userKey(params.key);
  let user;
  try {
    user = key && (await call(methodOfUser, key, { signal })).user;
  } catch (error) {
    if (error.code !== "NOT_FOUND") {
      throw error;
    }
  }
  if (!user) {
    return noSuchUser(params.key);
  }
  setTitle(user.username);
  remember("user", user);
  return new UserPage(user, signal).elements(query);
});

function noSuchUser(name) {
  return h(
    "div.empty",
    null,
    h("h1", null, "No such user"),
    h("p", null, `There is no user ${name}, or it was purged.`),
    h("p", null, h("a.button", { href: "#/users" }, "All users")),
  );
}

class UserPage {
  constructor(user, signal) {
    this.user = user;
    this.signal = signal;
    this.header = h("div.user-header");
    this.details = h("div");
    this.credit = creditCard(user, signal);
    this.orders = this.ordersCard();
    this.notes = notesCard({ title: "Notes by this user", filter: { authorId: user.id }, signal });
  }

  elements(query) {
    this.show();
    if (query.get("do")) {
      setTimeout(() => this.act(query.get("do")));
    }
    return [this.header, h("div.columns", null, this.details, this.credit), this.orders, this.notes];
  }

  show() {
    const { user } = this;
    const focused = document.activeElement?.dataset?.action;
    replace(
      this.header,
      pageHeader({
        title: [user.username, " ", statusBadge(stateOf(user)), user.superuser && [" ", badge("superuser", "info")]],
        lead: user.fullName,
        back: { href: "#/users", label: "Users" },
      }),
      actionButtons(userActions(user), (name) => this.act(name), {
        primary: ["create-order", "reactivate", "undelete"],
        more: ["password", "transfer-credit", "transfer-orders", "deactivate", "delete", "purge"],
      }),
    );
    replace(
      this.details,
      card(
        { title: "Details" },
        definitions([
          ["E-mail", user.email],
          ["Full name", user.fullName],
          ["Bio", user.profile?.bio && h("span.multiline", null, user.profile.bio)],
          ["Picture", user.profile?.avatarUrl],
          ["Created", timeElement(user.createTime, "exact")],
          ["Changed", timeElement(user.updateTime, "exact")],
          ["Deleted", user.deleteTime && timeElement(user.deleteTime, "exact")],
          ["May be erased from", user.purgeTime && timeElement(user.purgeTime)],
          ["Version", h("code", null, user.etag)],
          ["Id", [h("code", null, user.id), " ", copyButton(user.id, { label: "Copy the id", hideLabel: true })]],
          [
            "Events",
            h("a", { href: href("/live", { user: user.id, start: "earliest" }) }, "All stored events of this user"),
          ],
        ]),
      ),
    );
    if (focused) {
      (this.header.querySelector(`[data-action="${focused}"]`) ?? this.header.querySelector("h1")).focus();
    }
  }

  ordersCard() {
    const list = loaded(async () => {
      const request = { userId: this.user.id, pageSize: LATEST_ORDERS };
      const response = await call(orders("ListOrders"), request, { signal: this.signal });
      const found = response.orders ?? [];
      return found.length
        ? ordersTable(found, { withUser: false })
        : emptyState({ icon: "work", title: "No orders", text: "Orders of this user appear here." });
    }, this.signal);
    const all = h("a", { href: href("/orders", { user: this.user.id }) }, "All orders of this user");
    const element = card({ title: "Latest orders", actions: [all] }, list);
    element.reload = list.reload;
    return element;
  }

  make(name) {
    const found = userActions(this.user).find((action) => action.name === name);
    if (found?.refusal) {
      toast(found.refusal);
    }
    return found && !found.refusal ? userAction(name, this.user, this.credit.balances()) : null;
  }

  /** Open the dialog of an action, if the user allows it. */
  async act(name) {
    const action = this.make(name);
    if (!action) {
      return;
    }
    setQuery({ do: name });
    const result = await openAction({
      action,
      reload: async () => {
        await this.read();
        return this.make(name);
      },
      signal: this.signal,
    });
    if (this.signal.aborted) {
      return;
    }
    setQuery({});
    if (result?.response && name === "purge") {
      navigate("/users");
    } else if (result?.response && name === "create-order") {
      navigate(`/orders/${result.response.order.orderNumber}`);
    } else if (result) {
      await this.afterChange(result);
    }
  }

  async afterChange({ response }) {
    if (response?.user) {
      this.take(response.user);
    } else {
      try {
        await this.read();
      } catch (error) {
        if (this.signal.aborted) {
          return;
        }
        // What else is shown is read nevertheless.
        toast(error.message, { kind: "bad" });
      }
    }
    this.credit.reload({ quietly: true });
    this.orders.reload({ quietly: true });
  }

  async read() {
    const { user } = await call(methodOfUser, { id: this.user.id }, { signal: this.signal });
    this.take(user);
  }

  take(user) {
    if (user.etag !== this.user.etag) {
      this.user = user;
      remember("user", user);
      this.show();
    }
  }
}
