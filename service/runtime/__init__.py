"""Utilities for any asyncio process. They do not depend on orders, gRPC or PostgreSQL."""
