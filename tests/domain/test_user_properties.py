"""Any sequence of calls at any times leaves a user valid."""

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service.domain.errors import DomainError, IllegalTransition, InvalidField, UserDeleted
from service.domain.users import PURGE_AFTER, TRANSITIONS, User, UserFields, UserState
from tests.support.properties import many_calls, times

ACTIVE, INACTIVE, DELETED = UserState.ACTIVE, UserState.INACTIVE, UserState.DELETED

updates: st.SearchStrategy[UserFields] = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from(["ada@example.com", "Ada@example.com", ""]),
        "username": st.sampled_from(["ada", "grace", ""]),
        "full_name": st.sampled_from(["", "Ada"]),
        "superuser": st.booleans(),
    },
)  # type: ignore[assignment] # the dictionaries are as UserFields says


class Users(RuleBasedStateMachine):
    user: User
    # The state that undelete must restore.
    before_deletion: UserState

    @initialize(now=times)
    def create(self, now: datetime) -> None:
        self.user = User.create({"email": "ada@example.com", "username": "ada"}, now)
        self.etags = {self.user.etag}

    @rule(update=updates, now=times)
    def update(self, update: UserFields, now: datetime) -> None:
        state = self.user.state
        refused = self._call(lambda: self.user.update(update, now), now)
        assert isinstance(refused, UserDeleted) is (state is DELETED)
        if state is not DELETED:
            assert isinstance(refused, InvalidField) is ("" in (update.get("email"), update.get("username")))
        if refused is None:
            assert {name: getattr(self.user, name) for name in update} == update
            assert self.user.state is state

    @rule(now=times)
    def change_password(self, now: datetime) -> None:
        state = self.user.state
        refused = self._call(lambda: self.user.password_changed(now), now)
        assert isinstance(refused, UserDeleted) is (state is DELETED)
        assert self.user.state is state

    @rule(now=times)
    def deactivate(self, now: datetime) -> None:
        self._go(now, lambda: self.user.deactivate(now), source={ACTIVE}, target=INACTIVE)

    @rule(now=times)
    def reactivate(self, now: datetime) -> None:
        self._go(now, lambda: self.user.reactivate(now), source={INACTIVE}, target=ACTIVE)

    @rule(now=times)
    def delete(self, now: datetime) -> None:
        if self.user.state is not DELETED:
            self.before_deletion = self.user.state
        self._go(now, lambda: self.user.delete(now), source={ACTIVE, INACTIVE}, target=DELETED)

    @rule(now=times)
    def undelete(self, now: datetime) -> None:
        target = self.before_deletion if self.user.state is DELETED else ACTIVE
        self._go(now, lambda: self.user.undelete(now), source={DELETED}, target=target)

    @invariant()
    def the_times_of_a_deletion_belong_to_a_deleted_user(self) -> None:
        user = self.user
        if user.state is DELETED:
            assert user.delete_time is not None
            assert user.purge_time == user.delete_time + PURGE_AFTER
            assert user.create_time <= user.delete_time == user.update_time
            assert user.undelete_state in {ACTIVE, INACTIVE}
        else:
            assert (user.delete_time, user.purge_time, user.undelete_state) == (None, None, None)

    @invariant()
    def the_names_are_never_empty(self) -> None:
        assert self.user.email
        assert self.user.username

    @invariant()
    def every_change_has_one_event(self) -> None:
        events = self.user.__dict__["_pending_events"]
        assert len(events) == self.user.version
        event_times = [event.create_time for event in events]
        assert event_times == sorted(event_times)
        assert event_times[-1] == self.user.update_time >= self.user.create_time

    def _go(self, now: datetime, transition: Callable[[], None], *, source: set[UserState], target: UserState) -> None:
        old = self.user.state
        refused = self._call(transition, now)
        assert isinstance(refused, IllegalTransition) is (old not in source)
        if refused is None:
            assert target in TRANSITIONS[old]
        assert self.user.state is (target if refused is None else old)

    def _call(self, call: Callable[[], None], now: datetime) -> DomainError | None:
        before = snapshot(self.user)
        try:
            call()
        except DomainError as refused:
            assert snapshot(self.user) == before
            return refused
        if snapshot(self.user) != before:
            assert self.user.version == before["version"] + 1
            assert self.user.update_time == max(now, before["update_time"])
            assert self.user.etag not in self.etags
            self.etags.add(self.user.etag)
        return None


def snapshot(user: User) -> dict[str, Any]:
    """Return a copy of everything that a user holds, including its pending events."""
    held = {field.name: getattr(user, field.name) for field in fields(User)}
    return {**held, "events": list(user.__dict__["_pending_events"])}


def test_no_sequence_of_calls_leaves_a_wrong_user() -> None:
    run_state_machine_as_test(Users, settings=many_calls)
