"""The decisions: one function each, on entities that a unit of work gives and keeps."""
