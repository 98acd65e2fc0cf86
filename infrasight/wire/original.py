"""The contract of the original InfraSight's agents: its service, and its events read off the wire.

They send a message for each event, so what one costs counts: fields are read as they lie, without making a message object of each.
"""

from __future__ import annotations

import abc
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import betterproto2 as proto

from infrasight.wire._generated.others import pb
from infrasight.wire._generated.others.pb import CollectorAck, EventCollectorBase
from infrasight.wire.access import Role
from infrasight.wire.service import ServerStream, Service

__all__ = ["CollectorAck", "EventCollectorService", "OriginalEvent", "events_of", "read_event"]

Value = int | float | bytes

MAX_MESSAGE_BYTES = 4 << 20
"""What a gRPC server in Go takes, by default, and so what these agents can have sent to theirs."""
MAX_LABELS = 256
"""Of one event, as they come; what is more is left out."""
_SIGN, _WRAP = 1 << 63, 1 << 64
_LIMITS = {proto.TYPE_UINT32: 1 << 32, proto.TYPE_UINT64: _WRAP, proto.TYPE_INT64: _WRAP}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = proto.WIRE_VARINT, proto.WIRE_FIXED_64, proto.WIRE_LEN_DELIM, proto.WIRE_FIXED_32
_WIRE_TYPES = {**dict.fromkeys(_LIMITS, _VARINT), proto.TYPE_DOUBLE: _FIXED64}
_DOUBLE = struct.Struct("<d")
_KEY, _VALUE = 1, 2  # of a map's entry


class EventCollectorService(Service):
    """Takes events from agents of the original InfraSight."""

    generated = EventCollectorBase
    roles = frozenset({Role.NODE})
    purpose = "ship events"
    max_message_bytes = MAX_MESSAGE_BYTES

    @abc.abstractmethod
    async def sendevents(self, stream: ServerStream[Any, CollectorAck]) -> None:
        """EbpfEvent in until the agent leaves, then one CollectorAck out."""

    @abc.abstractmethod
    async def sendbatch(self, stream: ServerStream[Any, CollectorAck]) -> None:
        """One Batch in, one CollectorAck out."""


@dataclass(slots=True)
class OriginalEvent:
    """An EbpfEvent: fields that are there, by name. Text is bytes."""

    about: dict[str, Value] = field(default_factory=dict)
    """Of the event itself."""
    labels: dict[bytes, bytes] = field(default_factory=dict)
    payload: str = ""
    """Which there is; empty for none."""
    said: dict[str, Value] = field(default_factory=dict)
    """The payload's fields."""


def _fields(message: type[proto.Message]) -> dict[int, tuple[str, str, int]]:
    """Number -> name, type, wire type."""
    known: proto.ProtoClassMetadata = message._betterproto  # type: ignore[arg-type]  # betterproto2 mistypes this descriptor
    return {meta.number: (name, meta.proto_type, _WIRE_TYPES.get(meta.proto_type, _LENGTH)) for name, meta in known.meta_by_field_name.items()}


_EVENT = _fields(pb.EbpfEvent)
_PAYLOADS = {
    "snoop": _fields(pb.SnooperEvent),
    "network": _fields(pb.NetworkEvent),
    "ptrace": _fields(pb.PtraceEvent),
    "mmap": _fields(pb.MmapEvent),
    "mount": _fields(pb.MountEvent),
    "resource": _fields(pb.ResourceEvent),
    "sys_freq": _fields(pb.SysFreqEvent),
    "syscall_freq_agg": _fields(pb.SyscallFreqAgg),
}
_BATCHED = next(number for number, (name, *_) in _fields(pb.Batch).items() if name == "batch")


def read_event(data: bytes) -> OriginalEvent:
    """The EbpfEvent in `data`; fields that are not of the contract are passed over. ValueError in few words when it is none."""
    event = OriginalEvent()
    for number, wire_type, value in _walk(data):
        known = _EVENT.get(number)
        if known is None:
            continue
        name, kind, wanted = known
        if wire_type != wanted:
            raise ValueError(f"{name} is of another type")
        if kind == proto.TYPE_MESSAGE:
            if name != event.payload:
                event.payload, event.said = name, {}
            _read_payload(value, _PAYLOADS[name], event.said)  # type: ignore[arg-type]  # bytes, by its wire type
        elif kind == proto.TYPE_MAP:
            _read_label(value, event.labels)  # type: ignore[arg-type]  # likewise
        else:
            event.about[name] = _typed(name, kind, value)
    return event


def events_of(batch: bytes) -> Iterator[bytes]:
    """The events in a Batch, each as it lies there. ValueError when it is none."""
    for number, wire_type, value in _walk(batch):
        if number == _BATCHED:
            if wire_type != _LENGTH:
                raise ValueError("batch is of another type")
            yield value  # type: ignore[misc]  # bytes, by its wire type


def _read_payload(data: bytes, fields: dict[int, tuple[str, str, int]], said: dict[str, Value]) -> None:
    for number, wire_type, value in _walk(data):
        known = fields.get(number)
        if known is None:
            continue
        name, kind, wanted = known
        if wire_type != wanted:
            raise ValueError(f"{name} is of another type")
        said[name] = _typed(name, kind, value)


def _read_label(data: bytes, labels: dict[bytes, bytes]) -> None:
    parts = {_KEY: b"", _VALUE: b""}
    for number, wire_type, value in _walk(data):
        if number in parts:
            if wire_type != _LENGTH:
                raise ValueError("a label is of another type")
            parts[number] = value  # type: ignore[assignment]  # bytes, by its wire type
    if len(labels) < MAX_LABELS:
        labels[parts[_KEY]] = parts[_VALUE]


def _typed(name: str, kind: str, value: int | bytes) -> Value:
    if isinstance(value, bytes):
        return float(_DOUBLE.unpack(value)[0]) if kind == proto.TYPE_DOUBLE else value
    if value >= _LIMITS[kind]:
        raise ValueError(f"{name} is out of range")
    return value - _WRAP if kind == proto.TYPE_INT64 and value >= _SIGN else value


def _walk(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of each field: a number for a varint, bytes for all others. ValueError when one is malformed."""
    place, end = 0, len(data)
    while place < end:
        key = data[place]
        place += 1
        if key >= 0x80:
            key, place = _varint(data, place - 1)
        wire_type = key & 7
        if wire_type in (_VARINT, _LENGTH):
            if place < end and data[place] < 0x80:
                value = data[place]
                place += 1
            else:
                value, place = _varint(data, place)
            if wire_type == _VARINT:
                yield key >> 3, wire_type, value
                continue
        elif wire_type == _FIXED64:
            value = 8
        elif wire_type == _FIXED32:
            value = 4
        else:
            raise ValueError("not protobuf")
        if place + value > end:
            raise ValueError("a field is cut off")
        yield key >> 3, wire_type, data[place : place + value]
        place += value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("a field is cut off")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")
