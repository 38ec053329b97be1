"""The rules: entities, value objects and errors in pure Python. Knows no database and no gRPC."""
