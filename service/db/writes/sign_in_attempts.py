"""Attempts to sign in without success; `service.application.ports.sign_in_attempts` documents each method.

An attempt is one short statement that commits by itself and locks one row. An attempt that has to wait writes nothing.
The clock is that of PostgreSQL, so the clocks of the servers do not matter.
"""

import hashlib
import hmac
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Interval,
    bindparam,
    case,
    delete,
    exists,
    extract,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import Grouping

from service.application.ports.sign_in_attempts import CountedAttempt
from service.db.connections.reader import StatementReader
from service.db.connections.statement import Statement
from service.db.tables import SIGN_IN_SLOTS, sign_in_attempts
from service.domain.errors import SignInLimited
from service.domain.sign_in import SignIn, forget_seconds

_table = sign_in_attempts.c
_slot = bindparam("slot", type_=Integer)
# In parentheses, without which PostgreSQL would take an index for a part of the type.
_delays: ColumnElement[Any] = Grouping(bindparam("delays", type_=ARRAY(Interval)))
# Not now(), which is the time at which the statement began, before it waited for another attempt's lock on the row.
_now = func.clock_timestamp()
_forget = bindparam("forget", type_=Interval())
# After a concurrent attempt has taken the turn of this one, the pause after it is not known.
_UNKNOWN_SECONDS = 1


def _times_after(number: ColumnElement[int]) -> tuple[ColumnElement[datetime], ColumnElement[datetime]]:
    """Return when the pause after the attempt with this number is over, and when the attempt no longer counts."""
    retry_time = _now + _delays[func.least(number, func.cardinality(_delays))]
    return retry_time, retry_time + _forget


# No pause is longer than the last one. If the clock was set back, or the setting was lowered, a stored time that is
# further away is no reason to wait.
_longest: ColumnElement[timedelta] = _delays[func.cardinality(_delays)]
_has_to_wait = (_table.retry_time > _now) & (_table.retry_time <= _now + _longest)
_next_number = case((_table.expire_time < _now, 1), else_=_table.attempts + 1)

_waiting = select(_table.retry_time).where(_table.slot == _slot, _has_to_wait).cte("waiting")
_first = select(_slot, literal(1), *_times_after(literal(1))).where(~exists(_waiting.select()))
_count = insert(sign_in_attempts).from_select(["slot", "attempts", "retry_time", "expire_time"], _first)
_next_times = _times_after(_next_number)
_counted = (
    _count.on_conflict_do_update(
        index_elements=[_table.slot],
        set_={"attempts": _next_number, "retry_time": _next_times[0], "expire_time": _next_times[1]},
        # Checked again under the lock: of several attempts at the same moment, one has the turn.
        where=~_has_to_wait,
    )
    .returning(_table.attempts)
    .cte("counted")
)
BEGIN = Statement(
    "begin_sign_in",
    select(
        select(_counted.c.attempts).scalar_subquery().label("number"),
        select(extract("epoch", _waiting.c.retry_time - _now)).scalar_subquery().label("wait_seconds"),
    ),
)
SUCCEEDED = Statement("sign_in_succeeded", delete(sign_in_attempts).where(_table.slot == _slot))
_is_last = _table.attempts == bindparam("number", type_=Integer)
UNDO = Statement(
    "undo_sign_in",
    update(sign_in_attempts)
    .where(_table.slot == _slot, _table.attempts > 0)
    # The pause after a later attempt stays.
    .values(attempts=_table.attempts - 1, retry_time=case((_is_last, _now), else_=_table.retry_time)),
)


class CountedSignInAttempts:
    """Implements `service.application.ports.sign_in_attempts.SignInAttempts`.

    The table has at most SIGN_IN_SLOTS rows, however many logins are tried. The slot of a login is a digest with a key,
    so no client can tell which logins share one; the table contains no login.

    Args:
        reader: runs the statements.
        key: a secret that all servers share.
        delays: the pauses in seconds after attempts without success (`service.domain.sign_in.sign_in_delays`); with an
            empty sequence, there is no limit, and nothing is counted.
    """

    def __init__(self, reader: StatementReader, key: bytes, delays: Sequence[float]) -> None:
        self._reader = reader
        # Has a fixed length, and differs from all input for which the key is used elsewhere.
        self._key = hmac.digest(key, hashlib.sha256(b"sign-in attempts").digest(), hashlib.sha256)
        self._delays = [timedelta(seconds=delay) for delay in delays]
        self._forget = timedelta(seconds=forget_seconds(delays)) if delays else timedelta()

    async def begin(self, sign_in: SignIn) -> CountedAttempt | None:
        """Count an attempt; raises SignInLimited."""
        if not self._delays:
            return None
        slot = self.slot(sign_in)
        values = {"slot": slot, "delays": self._delays, "forget": self._forget}
        time_left = self._reader.time_left()
        ((number, wait_seconds),) = await self._reader.executor.fetch(BEGIN, values, time_left=time_left)
        if number is None:
            raise SignInLimited(max(_UNKNOWN_SECONDS, math.ceil(wait_seconds or 0)))
        return CountedAttempt(slot, number)

    async def succeeded(self, attempt: CountedAttempt | None) -> None:
        """Forget an attempt and those before it."""
        if attempt:
            await self._reader.executor.fetch(SUCCEEDED, {"slot": attempt.slot})

    async def undo(self, attempt: CountedAttempt | None) -> None:
        """Do not count an attempt; also when the call has no time left."""
        if attempt:
            await self._reader.executor.fetch(UNDO, {"slot": attempt.slot, "number": attempt.number})

    def slot(self, sign_in: SignIn) -> int:
        """Return the number under which these attempts are counted."""
        digest = hmac.digest(self._key, sign_in.limited_as(), hashlib.sha256)
        return int.from_bytes(digest[:8]) % SIGN_IN_SLOTS
