"""The command `commercectl`: the user and order services from a shell."""
