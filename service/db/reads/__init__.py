"""The read side: each query is one statement, which returns plain rows."""
