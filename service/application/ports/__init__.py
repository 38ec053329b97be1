"""The ports: protocols that the application needs implemented, and the errors that they raise."""
