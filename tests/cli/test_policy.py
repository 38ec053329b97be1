from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.main import main
from service.cli.policy import DENIED
from tests.support.paths import ROOT

EXAMPLE = str(ROOT / "docs" / "policy.example.toml")


def commerce(*arguments: str) -> Result:
    return CliRunner(env={"COMMERCE_POLICY_FILE": None}).invoke(main, ["policy", *arguments])


def test_check_prints_what_each_identity_may_do() -> None:
    result = commerce("check", EXAMPLE)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    shop = lines.index("spiffe://example.org/shop: shop")
    assert lines[shop + 1] == "  act_for_users: x-on-behalf-of"
    assert "  users.read:own: GetUser, BatchGetUsers, WatchUsers" in lines
    assert "  orders.process: ConfirmOrder, ProcessOrder, ShipOrder, DeliverOrder" in lines
    assert "jwt:customers:0197f3a2-0000-7000-8000-000000000001: no roles" in lines
    assert lines[-1] == f"{EXAMPLE} is valid: 7 roles, 9 identities"


def test_check_names_everything_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[roles]\na = ["users.reed"]\n[identities]\n"key:a" = ["b"]\n')
    result = commerce("check", str(file))
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second, last = result.stderr.splitlines()
    assert first.startswith(f'{file}: roles.a: there is no permission "users.reed"; is it users.read?')
    assert second.startswith(f'{file}: identities."key:a": there is no role b')
    assert last == f"Error: {file} cannot be used as a policy"


def test_check_warns_of_what_is_probably_wrong(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[roles]\na = ["users.read"]\n[identities]\n"kye:a" = ["a"]\n')
    result = commerce("check", str(file))
    assert result.exit_code == 0
    assert result.stderr.startswith(f'warning: {file}: identities."kye:a": names of identities begin with ')


@pytest.mark.parametrize(
    ("identity", "method", "status", "answer"),
    [
        ("CN=support", "GetUser", 0, "Allowed."),
        (
            "jwt:customers:1",
            "GetUser",
            0,
            "Allowed for what belongs to the user for whom the caller acts; otherwise denied.",
        ),
        (
            "jwt:customers:1",
            "commerce.users.v1.UserService/ListUsers",
            DENIED,
            "Denied: users.read:own does not allow it, because it cannot be limited to one user.",
        ),
        ("jwt:customers:1", "/commerce.orders.v1.OrderService/CreateOrder", DENIED, "Denied: orders.write is missing."),
        ("CN=support2", "UserService.GetUser", DENIED, "Denied: users.read is missing."),
    ],
)
def test_explain_says_whether_and_why(identity: str, method: str, status: int, answer: str) -> None:
    result = commerce("explain", identity, method, "--policy", EXAMPLE)
    assert result.exit_code == status
    assert result.stdout.splitlines()[-1] == answer
    assert result.stderr == ""


def test_explain_says_which_name_applies() -> None:
    def lines(identity: str) -> list[str]:
        return commerce("explain", identity, "GetUser", "--policy", EXAMPLE).stdout.splitlines()

    assert lines("CN=support")[:2] == [
        "commerce.users.v1.UserService.GetUser needs users.read.",
        "CN=support is named in the policy, with the role support.",
    ]
    assert lines("jwt:staff:bob")[1] == "jwt:staff:bob matches jwt:staff:* in the policy, with the role support."
    assert lines("jwt:staff:ada")[1] == "jwt:staff:ada is named in the policy, with the roles support, operator."
    blocked = lines("jwt:customers:0197f3a2-0000-7000-8000-000000000001")
    assert blocked[1].endswith(" is named in the policy, with no roles.")
    assert blocked[2] == "Permissions: none."
    assert lines("key:other")[1] == "No name in the policy matches key:other."


def test_explain_reads_the_policy_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMERCE_POLICY_FILE", EXAMPLE)
    result = CliRunner().invoke(main, ["policy", "explain", "CN=support", "GetUser"])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "Allowed.")


def test_explain_says_what_is_wrong_with_its_arguments(tmp_path: Path) -> None:
    result = commerce("explain", "CN=support", "GetUsers", "--policy", EXAMPLE)
    assert (result.exit_code, "there is no method GetUsers; is it GetUser?" in result.stderr) == (2, True)
    # The name of a method ends nowhere else.
    assert commerce("explain", "CN=support", "User", "--policy", EXAMPLE).exit_code == 2
    result = commerce("explain", "CN=support", "GetUser")
    assert (result.exit_code, "COMMERCE_POLICY_FILE is not set" in result.stderr) == (1, True)
    result = commerce("explain", "CN=support", "GetUser", "--policy", str(tmp_path / "none"))
    assert (result.exit_code, "cannot be read" in result.stderr) == (1, True)
