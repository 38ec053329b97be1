"""What operators run: migrations, the readiness check, retention and the ledger check."""
