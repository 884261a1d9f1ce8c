"""Requests that are nearly right: messages and their bytes, changed at random."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INTEGERS = (
    0,
    1,
    -1,
    2,
    255,
    2**15,
    2**31 - 1,
    -(2**31),
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3.4e38, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    "\0",
    "é",
    "\U0001d4b3",
    "a" * 5000,
    "../../etc/passwd",
    "/",
    "%s%n",
    "\n",
    "{}",
    "-1",
    "01",
    "9" * 40,
    "latest",
)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def mutated(seeds: Sequence[Message], random: Random) -> bytes:
    """The bytes of one of the messages, changed: its fields, its encoding, or both.

    Parameters
    ----------
    seeds : sequence of Message
        Good requests of one method.
    """
    seed = random.choice(seeds)
    message = type(seed)()
    message.CopyFrom(seed)
    if random.random() < 0.75:
        for _ in range(random.randint(1, 3)):
            _change_field(message, random)
    encoded = bytearray(message.SerializeToString())
    if random.random() < 0.5:
        for _ in range(random.randint(1, 4)):
            _change_bytes(encoded, random)
    if random.random() < 0.05:
        encoded += random.choice(seeds).SerializeToString()  # what comes twice is merged
    return bytes(encoded)


def _change_field(message: Message, random: Random) -> None:
    fields: Sequence[Any] = message.DESCRIPTOR.fields
    if not fields:
        return
    field = random.choice(fields)
    if random.random() < 0.15:
        message.ClearField(field.name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        _change_map(getattr(message, field.name), field.message_type, random)
    elif field.is_repeated:
        _change_list(getattr(message, field.name), field, random)
    elif field.message_type is not None:
        _change_message(getattr(message, field.name), random)
    else:
        setattr(message, field.name, _value(field, random, getattr(message, field.name)))


def _change_message(message: Message, random: Random) -> None:
    message.SetInParent()
    _change_field(message, random)


def _change_list(values: Any, field: FieldDescriptor, random: Random) -> None:
    if values and random.random() < 0.3:
        del values[random.randrange(len(values))]
    elif field.message_type is not None:
        _change_message(random.choice(values) if values and random.random() < 0.7 else values.add(), random)
    elif values and random.random() < 0.6:
        index = random.randrange(len(values))
        values[index] = _value(field, random, values[index])
    else:
        values.extend([_value(field, random, None)] * random.choice((1, 1, 2, 70)))


def _change_map(values: Any, entry: Any, random: Random) -> None:
    key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
    keys = list(values)
    key = random.choice(keys) if keys and random.random() < 0.7 else _value(key_field, random, None)
    if value_field.message_type is not None:
        _change_message(values[key], random)
    else:
        values[key] = _value(value_field, random, None)


def _value(field: FieldDescriptor, random: Random, old: Any) -> Any:
    kind = field.cpp_type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        new = random.choice(_INTEGERS) if random.random() < 0.8 else random.randint(low, high)
        if isinstance(old, int) and random.random() < 0.3:
            new = old + random.choice((-1, 1))
        return min(max(new, low), high)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return random.choice(_FLOATS) if random.random() < 0.7 else random.uniform(-2, 2)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if field.type == FieldDescriptor.TYPE_BYTES:
        raw = bytearray(old or random.randbytes(random.choice((0, 1, 4, 48))))
        _change_bytes(raw, random)
        return bytes(raw)
    if isinstance(old, str) and old and random.random() < 0.5:
        return old[: random.randrange(len(old))]
    return random.choice(_TEXTS)


def _change_bytes(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data) + 1)
    length = min(random.choice((1, 1, 1, 2, 4, 8, 32)), len(data) - start)
    match random.randrange(6):
        case 0 if length:
            data[start] ^= 1 << random.randrange(8)
        case 1:
            data[start : start + length] = random.randbytes(length)
        case 2:
            data[start:start] = random.randbytes(random.choice((1, 2, 4, 16)))
        case 3:
            del data[start : start + length]
        case 4:
            data[start:start] = data[start : start + length] * random.choice((1, 2, 50))
        case _:
            del data[start:]
