"""What operators run: migrations, readiness, retention and the ledger check."""
