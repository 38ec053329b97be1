"""The `commerce` command, with one module for each group of commands."""
