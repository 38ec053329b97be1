"""Generate the mechanical part of `commerce.client`."""
