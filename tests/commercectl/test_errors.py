import pytest
from commerce.client.cli.advice import ADVICE, EXIT_CODES
from commerce.client.cli.explain import REASONS
from commerce.client.errors import ERRORS_BY_REASON

from tests.support.commercectl_shell import NewUser, Shell
from tests.support.processes import free_port

USER_ID = "01981d2c-58f5-7f5e-9d5f-0a4f1f4c7a31"


def test_each_reason_has_advice_and_is_explained(shell: Shell) -> None:
    assert set(REASONS) == set(ADVICE) == set(ERRORS_BY_REASON)
    rows = shell.json("explain")
    assert [row["reason"] for row in rows] == list(REASONS)
    assert all(row["code"].isupper() for row in rows)


@pytest.mark.parametrize("reason", REASONS)
def test_an_explanation_says_what_it_means_and_what_to_do(reason: str, shell: Shell) -> None:
    (facts,) = shell.json("explain", reason.lower())
    assert facts["reason"] == reason
    assert facts["meaning"].endswith(".")
    code, _, meaning = facts["exit code"].partition(" ")
    assert EXIT_CODES[int(code)] == meaning[1:-1]
    assert int(code) > 0


def test_a_reason_that_does_not_exist_is_refused_with_those_like_it(shell: Shell) -> None:
    assert "is it ETAG_MISMATCH?" in shell.run("explain", "etag", code=2).stderr


def test_wrong_fields_are_listed(shell: Shell) -> None:
    item = "product_id=r7,name=Rocket,quantity=0,unit_price=1 EUR"
    result = shell.run("orders", "create", "--user", USER_ID, "--item", item, "--external-ref", "a" * 101, code=3)
    assert result.stdout == ""
    for part in ("INVALID_FIELD (INVALID_ARGUMENT)", "order.items[0].quantity", "order.external_ref", "what to do"):
        assert part in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("users", "get", "nobody"), 4, "USER_NOT_FOUND"),
        (("orders", "confirm", "99999999"), 4, "ORDER_NOT_FOUND"),
        (("call", "CreateUser", '{"user": {"email": "x"}}'), 3, "INVALID_FIELD"),
    ],
)
def test_the_exit_code_follows_from_the_reason(
    arguments: tuple[str, ...], code: int, reason: str, shell: Shell
) -> None:
    assert reason in shell.run(*arguments, code=code).stderr


def test_a_state_that_does_not_allow_it_names_those_that_follow(shell: Shell, new_user: NewUser) -> None:
    new_user("stateful")
    result = shell.run("users", "reactivate", "stateful", code=5)
    assert "ILLEGAL_TRANSITION" in result.stderr
    assert "ACTIVE" in result.stderr


def test_without_a_server_a_read_was_not_written(shell: Shell) -> None:
    shell.address = f"127.0.0.1:{free_port()}"
    result = shell.run("--timeout", "0.5", "users", "list", code=7)
    assert "nothing was written" in result.stderr
    assert "commercectl health" in result.stderr
    assert f"no answer from {shell.address} within 0.5 s" in result.stderr
    assert "Connection refused" in result.stderr
    assert "DEADLINE_EXCEEDED" in shell.run("--timeout", "0.5", "health", code=7).stderr


def test_without_a_server_a_change_may_be_repeated_with_its_request_id(shell: Shell) -> None:
    shell.address = f"127.0.0.1:{free_port()}"
    result = shell.run("--timeout", "0.5", "users", "deactivate", USER_ID, code=8)
    assert "the write may have happened" in result.stderr
    assert "--request-id " in result.stderr


def test_a_file_that_cannot_be_written_is_named(shell: Shell) -> None:
    assert "/nowhere" in shell.run("export-users", "--file", "/nowhere/users.jsonl", code=1).stderr


def test_an_argument_that_is_no_text_is_refused(shell: Shell) -> None:
    assert "not text in UTF-8" in shell.run("users", "get", "\udcff", code=2).stderr


@pytest.mark.parametrize("text", ["", "{", "[]", '{"username": 1}', '{"name": ""}', '{"id":' * 100_000, "\0"])
def test_json_that_is_no_request_is_refused(text: str, shell: Shell) -> None:
    assert "this is not a GetUserRequest" in shell.run("call", "GetUser", "-", typed=text, code=2).stderr


def test_a_call_that_fails_says_with_which_request_id_to_repeat_it(shell: Shell) -> None:
    shell.address = f"127.0.0.1:{free_port()}"
    result = shell.run("--timeout", "0.5", "call", "DeactivateUser", f'{{"id": "{USER_ID}"}}', code=8)
    assert "--request-id " in result.stderr
