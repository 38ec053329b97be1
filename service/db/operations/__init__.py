"""Operation of the database: migrations, the readiness check, retention and the ledger check."""
