"""How much the play-throughs do."""

import os

# `make recoveries` sets it.
FULL = os.environ.get("RECOVERIES") == "full"
# Of users, with an order each.
ROWS = 1000 if FULL else 5
# Versions older than the embedded one.
VERSIONS = (15, 16, 17)
UPGRADES_FROM = VERSIONS if FULL else VERSIONS[:1]
