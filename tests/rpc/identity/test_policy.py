import pytest

from service.rpc.identity.policy import MAX_REMEMBERED, Policy

ROLES = {
    "storefront": ["users.read", "orders.read", "act_for_users"],
    "customer": ["users.read:own", "orders.read:own", "notes.read:own"],
    "nothing": [],
}
POLICY = Policy(
    ROLES,
    {
        "spiffe://example.org/storefront": ["storefront"],
        "jwt:accounts:*": ["customer"],
        "jwt:*": ["nothing"],
        "jwt:accounts:blocked": [],
        "jwt:accounts:staff-*": ["storefront", "customer"],
        "star*": ["storefront"],
    },
)


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("spiffe://example.org/storefront", "spiffe://example.org/storefront"),
        ("spiffe://example.org/storefront2", ""),
        ("spiffe://example.org/STOREFRONT", ""),
        ("jwt:accounts:7", "jwt:accounts:*"),
        ("jwt:accounts:", "jwt:accounts:*"),
        ("jwt:accounts", "jwt:*"),
        ("jwt:partners:7", "jwt:*"),
        ("jwt:accounts:blocked", "jwt:accounts:blocked"),
        ("jwt:accounts:blocked2", "jwt:accounts:*"),
        ("jwt:accounts:staff-1", "jwt:accounts:staff-*"),
        ("star*", "star*"),
        ("sta", ""),
        ("anonymous", ""),
        ("", ""),
    ],
)
def test_the_exact_name_applies_or_else_the_longest_prefix(identity: str, name: str) -> None:
    assert POLICY[identity].name == name


def test_only_one_name_applies() -> None:
    assert POLICY["jwt:accounts:blocked"].permissions == frozenset()
    assert POLICY["jwt:accounts:blocked"].own == frozenset()


def test_roles_add_up_and_a_whole_permission_includes_the_limited_one() -> None:
    grants = POLICY["jwt:accounts:staff-1"]
    assert grants.roles == ("storefront", "customer")
    assert grants.permissions == {"users.read", "orders.read", "act_for_users"}
    assert grants.own == {"notes.read"}


def test_who_is_not_named_may_do_nothing() -> None:
    grants = POLICY["key:other"]
    assert (grants.permissions, grants.own, grants.roles) == (frozenset(), frozenset(), ())


def test_a_name_with_a_star_is_a_prefix_and_no_identity() -> None:
    policy = Policy({"a": ["users.read"], "b": ["users.write"]}, {"key:x*": ["a"], "key:x*y": ["b"]})
    assert policy["key:x*"].roles == ("a",)
    assert policy["key:x*y"].roles == ("b",)


def test_every_identity_may_be_named_together() -> None:
    assert Policy({"a": ["users.read"]}, {"*": ["a"]})["key:x"].permissions == {"users.read"}


def test_what_is_found_is_found_again_without_a_search() -> None:
    policy = Policy(ROLES, {"jwt:accounts:*": ["customer"]})
    assert policy["jwt:accounts:1"] is policy["jwt:accounts:2"] is dict.get(policy, "jwt:accounts:1")


def test_the_number_of_remembered_identities_is_bounded() -> None:
    policy = Policy(ROLES, {"jwt:accounts:*": ["customer"]})
    for number in range(MAX_REMEMBERED + 10):
        assert policy[f"jwt:accounts:{number}"].roles == ("customer",)
    assert len(policy) == 10
