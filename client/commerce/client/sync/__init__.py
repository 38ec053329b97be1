"""`Client`: for programs without an event loop."""
