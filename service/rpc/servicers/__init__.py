"""The servicers: parse the request, call the application, build the response."""
