"""How much the play-throughs do."""

import os

# `make recoveries` sets it.
FULL = os.environ.get("RECOVERIES") == "full"
# Of users, with an order each.
ROWS = 1000 if FULL else 20
# The versions that a change to the newest begins with, and those that all methods run on.
UPGRADES_FROM = (15, 16, 17) if FULL else (16,)
VERSIONS = (15, 16, 17) if FULL else (15,)
