"""Reach PostgreSQL: engines, the statement executor, batching, the replica and PgBouncer."""
