"""PostgreSQL: tables, the write side (unit of work and repositories) and the read side (queries)."""
