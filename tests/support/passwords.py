"""Passwords and password settings of tests."""

from typing import Any

PASSWORD = "correct horse battery"  # noqa: S105 - of users that live as long as a test


# The minimum of argon2, so that tests do not spend their time on hashing.
FAST_PASSWORDS = {"argon2_time_cost": 1, "argon2_memory_kib": 8}
# Those of the service, for tests of how long hashing takes.
SLOW_PASSWORDS: dict[str, Any] = {"argon2_time_cost": 2, "argon2_memory_kib": 19456}
