from pathlib import Path

import pytest

from service.rpc.identity.permissions import permissions
from service.rpc.identity.policy_parsing import PolicyError, read_policy, suspicions
from tests.support.paths import ROOT

GOOD = """
[roles]
storefront = ["users.read", "orders.read", "act_for_users"]
customer = ["users.read:own"]
[identities]
"key:storefront" = ["storefront"]
"jwt:accounts:*" = ["customer"]
"""
ALL = ", ".join(permissions())
LIMITED = ", ".join(f"{name}:own" for name, limited in permissions().items() if limited)


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "policy.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def problems_of(folder: Path, content: str | bytes) -> list[str]:
    file = written(folder, content)
    with pytest.raises(PolicyError) as raised:
        read_policy(file)
    assert str(raised.value) == "; ".join(raised.value.problems)
    assert all(problem.startswith(f"{file}: ") for problem in raised.value.problems)
    return [problem.removeprefix(f"{file}: ") for problem in raised.value.problems]


def test_a_policy_is_read(tmp_path: Path) -> None:
    policy = read_policy(written(tmp_path, GOOD))
    assert policy["key:storefront"].permissions == {"users.read", "orders.read", "act_for_users"}
    assert policy["jwt:accounts:1"].own == {"users.read"}
    assert [*suspicions(policy)] == []


def test_the_example_is_a_policy() -> None:
    policy = read_policy(ROOT / "docs" / "policy.example.toml")
    assert [*suspicions(policy)] == []
    # It shows a use of every permission.
    given = {name for grants in policy.identities.values() for name in grants.permissions | grants.own}
    assert given == permissions().keys()


@pytest.mark.parametrize(
    ("roles", "identities", "problems"),
    [
        (
            'a = ["users.reed"]',
            '"key:a" = ["a"]',
            [f'roles.a: there is no permission "users.reed"; is it users.read?; permissions: {ALL}'],
        ),
        ('a = ["*"]', '"key:a" = ["a"]', [f'roles.a: there is no permission "*"; permissions: {ALL}']),
        (
            'a = ["users.read:ow"]',
            '"key:a" = ["a"]',
            [f'roles.a: there is no permission "users.read:ow"; is it users.read:own?; permissions: {ALL}'],
        ),
        (
            'a = ["credit.grant:own"]',
            '"key:a" = ["a"]',
            [f"roles.a: no method of credit.grant can be limited to one user; permissions that can: {LIMITED}"],
        ),
        (
            'a = ["act_for_users:own"]',
            '"key:a" = ["a"]',
            [f"roles.a: no method of act_for_users can be limited to one user; permissions that can: {LIMITED}"],
        ),
        (
            'a = ["users.read", "users.read:own"]',
            '"key:a" = ["a"]',
            ["roles.a: users.read:own is a part of users.read, which the role has too; remove one of them"],
        ),
        ('a = ["users.read", "users.read"]', '"key:a" = ["a"]', ['roles.a: "users.read" is listed twice']),
        (
            'a = "users.read"',
            '"key:a" = ["a"]',
            ['roles.a: must be a list of permissions, such as ["a", "b"], or [] for none'],
        ),
        (
            "a = [1]",
            '"key:a" = ["a"]',
            ['roles.a: must be a list of permissions, such as ["a", "b"], or [] for none'],
        ),
        (
            '"a b" = []',
            '"key:a" = ["a b"]',
            ['roles."a b": the name of a role has 1 to 64 letters, digits, underscores and hyphens'],
        ),
        (
            "storefront = []",
            '"key:a" = ["storefont"]',
            ['identities."key:a": there is no role storefont; is it storefront?; roles: storefront'],
        ),
        ("a = []", '"key:a" = ["a", "a"]', ['identities."key:a": a is listed twice']),
        (
            "a = []",
            '"key:a" = {roles = ["a"]}',
            ['identities."key:a": must be a list of roles, such as ["a", "b"], or [] for none'],
        ),
        ("a = []", '"" = ["a"]', ['identities."": must be the name of an identity, or a prefix that ends with *']),
        (
            "a = []",
            r'"key:\n\"\\" = ["a"]',
            [r'identities."key:?\"\\": must be the name of an identity, or a prefix that ends with *'],
        ),
        ("", '"key:a" = ["a"]', ["roles: must be a table with at least one entry"]),
        ("a = []", "", ["identities: must be a table with at least one entry"]),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed_instead(
    tmp_path: Path, roles: str, identities: str, problems: list[str]
) -> None:
    assert problems_of(tmp_path, f"[roles]\n{roles}\n[identities]\n{identities}\n") == problems


def test_all_mistakes_are_named_together(tmp_path: Path) -> None:
    content = 'role = 1\n[roles]\na = ["x", "x"]\n[identities]\n"key:a" = ["b"]\n'
    assert problems_of(tmp_path, content) == [
        "role: is unknown; is it roles?; a policy has the tables roles and identities",
        "roles.a: x is listed twice",
        f"roles.a: there is no permission x; permissions: {ALL}",
        f"roles.a: there is no permission x; permissions: {ALL}",
        'identities."key:a": there is no role b; roles: a',
    ]


def test_what_is_no_toml_is_named_by_its_place(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, '[roles]\na = ["users.read"\n')
    assert problem.startswith("is not TOML: ")
    (problem,) = problems_of(tmp_path, '[roles]\na = []\na = ["users.read"]\n')
    assert problem == "is not TOML: Cannot overwrite a value (at line 3, column 19)"


def test_a_file_that_cannot_be_a_policy_is_refused(tmp_path: Path) -> None:
    assert problems_of(tmp_path, b"\xff") == ["is not UTF-8 text"]
    assert problems_of(tmp_path, "#" * (1 << 20) + "\n") == ["has more than 1048576 bytes"]
    assert problems_of(tmp_path, "") == [
        "roles: must be a table with at least one entry",
        "identities: must be a table with at least one entry",
    ]
    with pytest.raises(PolicyError, match="cannot be read: Is a directory"):
        read_policy(tmp_path)
    with pytest.raises(PolicyError, match="cannot be read: No such file or directory"):
        read_policy(tmp_path / "none.toml")


def test_what_is_probably_a_mistake_is_named(tmp_path: Path) -> None:
    policy = read_policy(
        written(
            tmp_path,
            """
[roles]
used = []
unused = []
[identities]
"*" = ["used"]
"jwt:*" = ["used"]
"jwt:accounts*" = ["used"]
"jtw:accounts:*" = ["used"]
"CN=billing" = ["used"]
"spiffe://example.org/*" = ["used"]
""",
        )
    )
    assert [*suspicions(policy)] == [
        "roles.unused: no identity has this role",
        'identities."jwt:accounts*": the prefix also matches jwt:accounts2, because it ends inside a word',
        'identities."jtw:accounts:*": names of identities begin with spiffe://, jwt:, key: or are like CN=billing',
    ]
