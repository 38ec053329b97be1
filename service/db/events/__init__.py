"""The event log: its order, the event feed of watchers, and the cursors of relays."""
