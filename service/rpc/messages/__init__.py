"""Conversions between messages, entities and rows: the only code that knows all of them."""
