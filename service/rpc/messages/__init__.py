"""Conversions between messages, entities and rows; no other code depends on all three."""
