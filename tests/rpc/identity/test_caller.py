from uuid import UUID

from service.rpc.identity.caller import ANONYMOUS, Caller

SOME_ID = UUID("01890000-0000-7000-8000-000000000001")


def test_a_caller_without_an_end_user_has_its_name_as_scope() -> None:
    assert (ANONYMOUS.scope, Caller("key:shop").scope) == ("anonymous", "key:shop")


def test_a_caller_has_another_scope_for_each_end_user() -> None:
    scopes = {Caller(name, user).scope for name in ("key:a", "key:b") for user in (None, SOME_ID, UUID(int=1))}
    assert len(scopes) == 6
