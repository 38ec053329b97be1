"""HTTP: Connect, gRPC-Web and plain JSON on a port of their own, as a bridge to the service's own gRPC server.

Every call goes through the gRPC server, on a Unix socket that only this user can connect to, so that no interceptor is
bypassed (ADR 33). Nothing here knows a method of the services: all is read from their descriptors.
"""
