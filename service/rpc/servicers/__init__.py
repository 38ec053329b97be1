"""The servicers: each method parses the request, calls the application and builds the response."""
