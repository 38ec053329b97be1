import csv
import io

import pytest
import yaml
from click import Command as ClickCommand
from click import Group
from commerce.client import Client, Money
from commerce.client.cli import credit, notes, orders, users
from commerce.client.cli.main import cli
from commerce.client.cli.texts import visible
from commerce.client.generated.methods import ALL

from tests.support.both_clients import ITEM
from tests.support.commercectl_shell import NewUser, Shell

ROCKET = "product_id=r7,name=Rocket,quantity=2,unit_price=9.99 EUR"
# They have a command of another kind, or only `call`.
WITHOUT_COMMAND = {
    "BatchGetOrders",
    "BatchGetUsers",
    "ExportOrders",
    "ExportUsers",
    "ImportUsers",
    "VerifyPassword",
    "WatchOrders",
    "WatchUsers",
}


def test_each_method_has_one_command() -> None:
    commands = [command for module in (users, orders, credit, notes) for command in module.COMMANDS]
    paths = [command.method.path for command in commands]
    assert len(set(paths)) == len(paths)
    expected = {method.path for method in ALL if method.path.rpartition("/")[2] not in WITHOUT_COMMAND}
    assert set(paths) == expected


def leaves(command: ClickCommand, *names: str) -> list[tuple[str, ...]]:
    """Return the names of all commands."""
    if not isinstance(command, Group):
        return [names]
    return [leaf for name, inner in command.commands.items() for leaf in leaves(inner, *names, name)]


@pytest.mark.parametrize("names", leaves(cli), ids=" ".join)
def test_each_command_has_help(names: tuple[str, ...], shell: Shell) -> None:
    output = shell.run(*names, "--help").stdout
    assert "Options:" in output
    assert f"Usage: commercectl {' '.join(names)}" in output


@pytest.mark.parametrize("key", ["id", "email", "username"])
def test_a_user_is_found_by_any_of_its_names(key: str, shell: Shell, new_user: NewUser) -> None:
    user = new_user(f"found.by.{key}")
    assert shell.json("users", "get", getattr(user, key))["id"] == user.id


def test_a_read_finds_a_user_by_a_part_of_the_address_that_nobody_else_has(shell: Shell, new_user: NewUser) -> None:
    user = new_user("part.of.address")
    found = shell.run("users", "get", "part.of.address@exam", "--quiet")
    assert found.stdout == f"{user.id}\n"
    assert shell.run("orders", "list", "--user", "part.of.ADDRESS@").stdout.startswith("ORDER NUMBER")
    taken = shell.run("credit", "balance", "part.of.address@").stderr
    assert taken == "part.of.address@ is taken for part.of.address (part.of.address@example.com)\n"
    new_user("part.of.address.2")
    assert shell.run("users", "get", "part.of.address@exam", "--quiet").stdout == f"{user.id}\n"
    several = shell.run("users", "get", "part.of@", code=3).stderr
    assert "INVALID_FIELD" in several
    assert "is it" not in several


def test_a_change_needs_the_whole_address_and_names_who_may_be_meant(shell: Shell, new_user: NewUser) -> None:
    new_user("not.changed")
    for part in ("not.changed@exam", "not.chang"):
        refused = shell.run("users", "deactivate", part, code=4).stderr
        assert "is it       not.changed (not.changed@example.com)" in refused
    assert shell.json("users", "get", "not.changed")["state"] == "USER_STATE_ACTIVE"


def test_an_order_is_found_by_its_number_in_any_spelling(shell: Shell, new_user: NewUser, client: Client) -> None:
    order = client.orders.create(user_id=new_user("numbers").id, items=[ITEM])
    number = order.order_number
    digits = str(int(number.removeprefix("ORD-")))
    for spelling in (number, number.lower(), digits, f"ord-{digits}", f"ORD {digits}", f" #{digits}", order.id):
        assert shell.run("orders", "get", spelling, "--quiet").stdout == f"{order.id}\n"


def test_an_order_goes_from_pending_to_delivered(shell: Shell, new_user: NewUser) -> None:
    user = new_user("whole.way")
    created = ("orders", "create", "--user", user.email, "--item", ROCKET, "--metadata", "shop=7", "--quiet")
    order_id = shell.run(*created).stdout.strip()
    shell.run("orders", "update", order_id, "--external-ref", "ref-7")
    shell.run("orders", "confirm", order_id)
    shell.run("orders", "process", order_id)
    shell.run("orders", "tag", order_id, "gift", "urgent")
    shell.run("orders", "untag", order_id, "urgent")
    shell.run("orders", "ship", order_id, "--tracking-number", "T-1")
    shell.run("orders", "deliver", order_id)
    order = shell.json("orders", "get", order_id)
    assert order["status"] == "ORDER_STATUS_DELIVERED"
    assert (order["metadata"], order["external_ref"], order["tags"]) == ({"shop": "7"}, "ref-7", ["gift"])
    types = [event["type"] for event in shell.json("orders", "events", order_id)]
    assert types[0] == "ORDER_EVENT_TYPE_CREATED"
    assert types[-1] == "ORDER_EVENT_TYPE_DELIVERED"
    assert "DELIVERED" in shell.run("orders", "events", order_id).stdout


def test_credit_is_granted_moved_and_listed(shell: Shell, new_user: NewUser) -> None:
    new_user("giver"), new_user("taker")
    shell.run("credit", "grant", "giver", "25.50 EUR", "--yes")
    shell.run("credit", "transfer", "giver", "taker@example.com", "10EUR", "--yes", "--description", "thanks")
    assert "15.5 EUR" in shell.run("credit", "balance", "giver").stdout
    assert [entry["description"] for entry in shell.json("credit", "entries", "taker")] == ["thanks"]


def test_notes_are_written_and_found(shell: Shell, new_user: NewUser, client: Client) -> None:
    order = client.orders.create(user_id=new_user("noted").id, items=[ITEM])
    note = shell.json("notes", "create", order.order_number, "Ring the bell", "--author", "noted")
    shell.run("notes", "update", note["id"], "--body", "Ring the doorbell")
    shell.run("notes", "publish", note["id"])
    (found,) = shell.json("notes", "search", "doorbell", "--order", order.order_number)
    assert found["note"]["id"] == note["id"]
    shell.run("notes", "delete", note["id"], "--yes")
    assert shell.json("notes", "list", "--order", order.id) == []


def test_a_dry_run_writes_nothing(shell: Shell, new_user: NewUser, client: Client) -> None:
    user = new_user("dry")
    result = shell.run("users", "deactivate", "dry", "--dry-run")
    assert "INACTIVE" in result.stdout
    assert "nothing was written" in result.stderr
    # Nothing is asked before it, either.
    shell.run("users", "purge", "dry", "--dry-run")
    assert client.users.get(user.id) == user


def test_an_update_changes_what_is_given_and_an_empty_value_clears(shell: Shell, new_user: NewUser) -> None:
    new_user("changing")
    shell.run("users", "update", "changing", "--full-name", "Ada", "--bio", "First", "--superuser")
    user = shell.json("users", "update", "changing", "--full-name", "", "--no-superuser")
    assert user["profile"] == {"bio": "First"}
    assert not user.keys() & {"full_name", "superuser"}
    assert "nothing to change" in shell.run("users", "update", "changing", code=2).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "purge", "kept"),
        ("users", "set-password", "kept"),
        ("credit", "grant", "kept", "1 EUR"),
        ("credit", "transfer", "kept", "kept", "1 EUR"),
        ("orders", "cancel", "1", "--reason", "none"),
        ("orders", "transfer", "kept", "kept"),
        ("notes", "delete", "bc0346bd-acd3-4ea3-86b4-c154d2eea51f"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_undone_is_asked_for(arguments: tuple[str, ...], shell: Shell) -> None:
    assert "pass --yes" in shell.run(*arguments, code=2).stderr


def test_a_list_ends_at_its_limit_and_says_so(shell: Shell, new_user: NewUser) -> None:
    for number in range(3):
        new_user(f"many{number}")
    limited = shell.run("users", "list", "--limit", "2", "--quiet")
    assert len(limited.stdout.splitlines()) == 2
    assert "--limit 0 for all" in shell.run("users", "list", "--limit", "2").stderr
    everything = shell.run("users", "list", "--limit", "0", "--quiet").stdout.splitlines()
    assert len(everything) == len(set(everything)) > 2


def test_a_limit_within_a_page_reads_one_page(shell: Shell, new_user: NewUser, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        new_user(f"paged{number}")
    # It sends the call for a page after the first.
    monkeypatch.delattr("commerce.client.sync.calls.Calls.start")
    limited = shell.run("users", "list", "--limit", "1")
    assert "there are more than 1" in limited.stderr
    assert "there are more" not in shell.run("users", "list", "--limit", "1000").stderr


def test_filters_are_those_of_the_rpc(shell: Shell, new_user: NewUser) -> None:
    new_user("filtered")
    shell.run("users", "deactivate", "filtered")
    found = shell.json("users", "list", "--state", "inactive", "--order-by", "oldest", "--limit", "0")
    assert "filtered" in [user["username"] for user in found]
    assert shell.json("users", "list", "--created-before", "2020-01-01") == []
    assert shell.json("users", "list", "--created-after", "2020-01-01T00:00+01:00", "--superuser") == []


def test_the_formats_say_the_same(shell: Shell, new_user: NewUser, client: Client) -> None:
    order = client.orders.create(user_id=new_user("formats").id, items=[ITEM], metadata={"a": "b"})
    as_json = shell.json("orders", "get", order.id)
    assert yaml.safe_load(shell.run("orders", "get", order.id, "-o", "yaml").stdout) == as_json
    (row,) = csv.DictReader(io.StringIO(shell.run("orders", "get", order.id, "-o", "csv").stdout))
    assert row["status"] == "PENDING"
    assert Money(row["total_amount.amount"], row["total_amount.currency"]) == Money("10.50", "EUR")
    assert row["create_time"] == as_json["create_time"]
    assert row["metadata"] == '{"a": "b"}'
    (row,) = csv.DictReader(io.StringIO(shell.run("orders", "list", "--user", "formats", "-o", "csv").stdout))
    assert row["id"] == order.id


def test_what_controls_a_terminal_is_made_visible() -> None:
    assert visible("one\ntwo \x1b[31mred\u202e") == "one\\x0atwo \\x1b[31mred\\x202e"
    assert visible("one\ntwo\r", lines=True) == "one\ntwo\\x0d"


def test_any_method_can_be_called(shell: Shell, new_user: NewUser) -> None:
    user = new_user("called")
    request = f'{{"ids": ["{user.id}"]}}'
    for name in ("BatchGetUsers", "batchgetusers", "commerce.users.v1.UserService/BatchGetUsers"):
        assert "called@example.com" in shell.run("call", name, request).stdout
    assert "called@example.com" in shell.run("call", "BatchGetUsers", "-", typed=request).stdout
    assert "commerce.users.v1.UserService/GetUser\n" in shell.run("call", "--list").stdout
    assert "use commercectl orders watch" in shell.run("call", "WatchOrders", code=2).stderr
    assert "not a GetUserRequest" in shell.run("call", "GetUser", '{"nick": 1}', code=2).stderr
    assert "no method" in shell.run("call", "GetUsers", code=2).stderr


@pytest.mark.parametrize("item", ["rocket", "product_id=r7,price=1 EUR", "quantity=two", "unit_price=9.99"])
def test_an_item_that_cannot_be_read_is_a_wrong_command_line(item: str, shell: Shell) -> None:
    assert "--item" in shell.run("orders", "create", "--user", "nobody", "--item", item, code=2).stderr


def test_a_quoted_part_of_an_item_can_have_a_comma(shell: Shell, new_user: NewUser) -> None:
    new_user("commas")
    item = 'product_id=r7,"name=Rocket, large",quantity=1,unit_price=1 EUR'
    order = shell.json("orders", "create", "--user", "commas", "--item", item)
    assert order["items"][0]["name"] == "Rocket, large"
