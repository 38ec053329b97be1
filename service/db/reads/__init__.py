"""The read side: one statement for each question, answered with plain rows."""
