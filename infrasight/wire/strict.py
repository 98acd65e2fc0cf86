"""Protobuf from a stranger. betterproto2 takes cut-off fields, wrong wire types and millions of unknown ones; this refuses them before it
sees them."""

from __future__ import annotations

import struct
from typing import TypeVar

import betterproto2 as proto

from infrasight.errors import InvalidRequest

M = TypeVar("M", bound=proto.Message)

MAX_FIELDS = 10_000
"""Fields, and bytes of packed numbers, that one message may hold: each costs the event loop about a microsecond."""
_FIXED_BYTES = {proto.WIRE_FIXED_64: 8, proto.WIRE_FIXED_32: 4}
_WIRE_TYPES: dict[str, int] = {
    **dict.fromkeys(proto.WIRE_VARINT_TYPES, proto.WIRE_VARINT),
    **dict.fromkeys(proto.WIRE_FIXED_32_TYPES, proto.WIRE_FIXED_32),
    **dict.fromkeys(proto.WIRE_FIXED_64_TYPES, proto.WIRE_FIXED_64),
    **dict.fromkeys(proto.WIRE_LEN_DELIM_TYPES, proto.WIRE_LEN_DELIM),
}


def parse(data: bytes, message: type[M], fields_max: int = MAX_FIELDS) -> M:
    """The `message` in `data`. InvalidRequest when it is not exactly one, or has more fields; those of a newer version are fine."""
    try:
        _check(memoryview(data), message, fields_max)
        return message.parse(data)
    except (ValueError, IndexError, EOFError, TypeError, struct.error) as error:
        raise InvalidRequest(f"not a {message.__name__}: {' '.join(str(error).split())[:200]}") from None


def _check(data: memoryview, message: type[proto.Message], budget: int) -> int:
    """Walk all fields; what is left of the budget. ValueError or IndexError when one is malformed."""
    known: proto.ProtoClassMetadata = message._betterproto  # type: ignore[arg-type]  # betterproto2 mistypes this descriptor
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        start, place = _value(data, place, key & 7)
        budget -= 1
        name = known.field_name_by_number.get(key >> 3)
        if name is not None:
            budget -= _check_known(data[start:place], key & 7, known.meta_by_field_name[name], known.cls_by_field.get(name), budget)
        if budget < 0:
            raise ValueError("too many fields")
    return budget


def _check_known(value: memoryview, wire_type: int, meta: proto.FieldMetadata, inner: type[proto.Message] | None, budget: int) -> int:
    """What a field of ours costs."""
    packed = bool(meta.repeated) and wire_type == proto.WIRE_LEN_DELIM and meta.proto_type in proto.PACKED_TYPES
    if packed:
        return len(value)
    if wire_type != _WIRE_TYPES[meta.proto_type]:
        raise ValueError(f"field {meta.number} is of another type")
    if meta.proto_type == proto.TYPE_MESSAGE and inner is not None:
        return budget - _check(value, inner, budget)
    return 0


def _value(data: memoryview, place: int, wire_type: int) -> tuple[int, int]:
    """Where the value starts and ends."""
    if wire_type == proto.WIRE_VARINT:
        return place, _varint(data, place)[1]
    if wire_type == proto.WIRE_LEN_DELIM:
        length, place = _varint(data, place)
    elif wire_type in _FIXED_BYTES:
        length = _FIXED_BYTES[wire_type]
    else:
        raise ValueError(f"wire type {wire_type}")
    if place + length > len(data):
        raise ValueError("a field is cut off")
    return place, place + length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")
