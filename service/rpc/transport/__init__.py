"""How calls arrive: accepting them, the event loop, the port, and the scheduling of threads."""
