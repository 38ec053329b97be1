"""Signed page tokens and cursors."""
