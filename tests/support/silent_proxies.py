"""A proxy in front of PostgreSQL that stops answering."""

import asyncio
from asyncio import StreamReader, StreamWriter

from tests.support.proxies import Proxy


class SilentProxy(Proxy):
    """A proxy that can be told to lose everything, as a network does that is cut."""

    silent = False

    async def there(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward the service's messages until they are lost."""
        while data := await reader.read(65536):
            if not self.silent:
                writer.write(data)
                await writer.drain()
        if self.silent:
            await asyncio.Event().wait()

    back = there
