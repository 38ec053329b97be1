"""Passwords and password settings of tests."""

PASSWORD = "correct horse battery"  # noqa: S105 - of users that live as long as a test


# The least that argon2 takes: tests are about everything but its cost.
FAST_PASSWORDS = {"argon2_time_cost": 1, "argon2_memory_kib": 8}
