"""The use cases that decide something, one function each. They work on entities that a unit of work loads and saves."""
