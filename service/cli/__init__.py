"""The `commerce` command, a file for each group of commands."""
