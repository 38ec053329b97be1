"""The domain model: entities, value objects and errors in pure Python, independent of PostgreSQL and gRPC."""
