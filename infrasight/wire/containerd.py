"""The messages of containerd's API that we read and write (proto/runtimes/containerd.proto)."""

from infrasight.wire._generated.others.runtimes.containerd import (
    Any,
    Container,
    Entry,
    Envelope,
    Extension,
    Filters,
    GotContainer,
    GotImage,
    Image,
    Name,
    Namespaces,
    Nothing,
    Target,
    Timestamp,
)

__all__ = [
    "Any",
    "Container",
    "Entry",
    "Envelope",
    "Extension",
    "Filters",
    "GotContainer",
    "GotImage",
    "Image",
    "Name",
    "Namespaces",
    "Nothing",
    "Target",
    "Timestamp",
]
