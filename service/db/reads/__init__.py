"""The read side: each query is one statement that returns plain rows."""
