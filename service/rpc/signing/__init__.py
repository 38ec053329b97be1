"""Page tokens and cursors, signed so that clients can only send back what this service issued."""
