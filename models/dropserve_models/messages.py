"""Walking through a protobuf message."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message


def walk(message: Message) -> Iterator[Message]:
    """`message`, and every message inside it. Protobuf's parser bounds how deep they nest."""
    yield message
    for _, value in message.ListFields():
        if isinstance(value, Message):
            yield from walk(value)
        elif not isinstance(value, str | bytes | int | float):
            for element in value:
                if not isinstance(element, Message):
                    break  # a repeated scalar
                yield from walk(element)
