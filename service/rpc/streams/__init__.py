"""Imports, exports and watches: streams with back-pressure and bounds."""
