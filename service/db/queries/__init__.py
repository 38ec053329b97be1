"""The read side: one statement for each question, on AUTOCOMMIT connections, answered with plain rows."""
