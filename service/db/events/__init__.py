"""The log of events: its order, the feed for watchers, and the cursors of relays."""
