"""The interceptors, one file each; `service.server` lists them in their order."""
