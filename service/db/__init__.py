"""PostgreSQL: connections, tables, the write side (units of work), the read side (queries), events and operations."""
