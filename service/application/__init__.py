"""The use cases, one function each, one function each. They work on entities that a unit of work loads and saves."""
