"""HTTP as it goes over the wire: a client that sends what a test says, byte for byte, and reads answers one by one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import parse_headers
from io import BytesIO
from typing import Any

import msgspec

PATIENCE_S = 20


@dataclass
class Reply:
    """An answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The JSON of the body."""
        document: dict[str, Any] = msgspec.json.decode(self.body)
        return document

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json"
        return str(self.document["code"])


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes | str) -> None:
        """Send bytes."""
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def reply(self, *, to_head: bool = False) -> Reply:
        """Read one answer."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status_line, _, fields = head.partition(b"\r\n")
            status, headers = int(status_line.split()[1]), parse_headers(BytesIO(fields))
            has_body = not (to_head or status < 200 or status == 204)
            length = int(headers["Content-Length"] or 0) if has_body else 0
            return Reply(status, headers, await self.reader.readexactly(length))

    async def ask(self, method: str, path: str, *fields: str, body: bytes | None = None) -> Reply:
        """Send a request as it should be, and read its answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        return await self.reply(to_head=method == "HEAD")

    async def is_closed(self) -> bool:
        """Wait until the server closes the connection; tell whether it says nothing before."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


@asynccontextmanager
async def connect(port: int, **kwargs: Any) -> AsyncIterator[Wire]:
    """Open a connection to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **kwargs)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def ask(port: int, method: str, path: str, *fields: str, body: bytes | None = None) -> Reply:
    """Send one request over a connection of its own."""
    async with connect(port) as wire:
        return await wire.ask(method, path, *fields, body=body)
