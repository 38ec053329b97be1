"""What any asyncio process needs; knows nothing of orders, gRPC or PostgreSQL."""
