"""The gRPC API: servicers, interceptors, streams, and the conversion between messages and entities."""
