"""gRPC: servicers, interceptors, and the conversion between messages and entities."""
