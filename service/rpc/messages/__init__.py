"""Messages to entities and back: pure functions, and the only place that knows both."""
