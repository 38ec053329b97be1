"""The base of errors that a command reports in one line."""


class OperatorError(Exception):
    """A program cannot go on. The message is one line for an operator: what is wrong, and what to do."""
