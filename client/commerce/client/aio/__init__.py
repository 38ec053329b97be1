"""`AsyncClient`: for programs with an event loop."""
