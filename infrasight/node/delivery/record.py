"""How a batch, or a piece of one, looks in a segment of the spool. Each record stands for itself, so that damage to one costs that one."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from infrasight.node.flow import Encoded

MAGIC = b"\xf5IS1"
"""What a record begins with: the first byte is none that text in UTF-8 has."""
_HEAD = struct.Struct("<4sIIIQQQIIBB")
"""Magic, CRC-32 of the rest of the header, CRC-32 and bytes of the payload, epoch, seq, oldest_ns, rows, piece, more, bytes of the kind's name."""
_CHECKED = 8
"""Where what the header's CRC covers begins."""
HEADER_MAX = _HEAD.size + 255
"""Bytes of the longest header."""
PAYLOAD_MAX = 64 << 20
"""Bytes of a payload, at most: what claims more is no record. A batch has 2.5 MiB."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a record says of itself."""

    epoch: int
    seq: int
    kind: str
    rows: int
    oldest_ns: int
    more: bool
    piece: int
    length: int
    """Bytes of the payload."""
    crc: int
    """CRC-32 of the payload."""

    @property
    def size(self) -> int:
        """Bytes of the header, after which the payload follows."""
        return _HEAD.size + len(self.kind.encode())

    @property
    def whole(self) -> bool:
        """Whether it is a batch, and not a piece of one."""
        return not self.more and not self.piece

    def sound(self, payload: bytes) -> bool:
        """Whether this is the payload that was written."""
        return len(payload) == self.length and zlib.crc32(payload) == self.crc


def head_of(piece: Encoded) -> bytes:
    """The header that goes before the payload of `piece`."""
    kind = piece.kind.encode()
    crc, more = zlib.crc32(piece.payload), int(piece.more)
    figures = (crc, len(piece.payload), piece.epoch, piece.seq, piece.oldest_ns, piece.rows, piece.piece, more, len(kind))
    rest = _HEAD.pack(MAGIC, 0, *figures)[_CHECKED:] + kind
    return MAGIC + zlib.crc32(rest).to_bytes(4, "little") + rest


def header_in(data: bytes) -> Header | None:
    """The header that `data` begins with; None when that is none, or a damaged one."""
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        return None
    _, check, crc, length, epoch, seq, oldest_ns, rows, piece, more, named = _HEAD.unpack_from(data)
    end = _HEAD.size + named
    if len(data) < end or zlib.crc32(data[_CHECKED:end]) != check or length > PAYLOAD_MAX:
        return None
    return Header(epoch, seq, data[_HEAD.size : end].decode("utf-8", "replace"), rows, oldest_ns, bool(more), piece, length, crc)
