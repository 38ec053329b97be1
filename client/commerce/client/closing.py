"""The error of a client that is closed."""


class ClientClosed(RuntimeError):
    """The client was closed, and takes no further calls."""

    def __init__(self) -> None:
        super().__init__("the client is closed")
