"""How PostgreSQL is reached: the engine, the statement executor, batching, the replica and PgBouncer."""
