"""What the application needs from outside: protocols, with the errors that they raise."""
