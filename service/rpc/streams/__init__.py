"""Imports, exports and watches: streams with flow control and bounded memory."""
