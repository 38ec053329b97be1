"""The domain model: entities, value objects and errors in pure Python, without database and gRPC."""
