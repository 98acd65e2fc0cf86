"""Our exceptions as gRPC statuses, and back. The first class of a status is what a client raises for it."""

from __future__ import annotations

import os

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from infrasight import errors

DENIED = "access denied: "
"""How a PERMISSION_DENIED begins that is about who calls, and not about what a query asks."""
MAX_REASON = 2000
"""Characters of a reason that travel: trailers are small."""
STATUSES: dict[type[errors.InfraSightError], Status] = {
    errors.InvalidRequest: Status.INVALID_ARGUMENT,
    errors.QueryRefused: Status.PERMISSION_DENIED,
    errors.Unauthenticated: Status.UNAUTHENTICATED,
    errors.AccessDenied: Status.PERMISSION_DENIED,
    errors.QueryFailed: Status.ABORTED,
    errors.Disconnected: Status.UNAVAILABLE,
    errors.StoreError: Status.FAILED_PRECONDITION,
    errors.InfraSightError: Status.INTERNAL,
}


def in_words(error: Exception) -> str:
    """What went wrong, shortly; asyncio replaces the system's text of an errno with longer ones of its own."""
    return os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno is not None and error.errno > 0 else str(error)


def to_grpc(error: errors.InfraSightError) -> GRPCError:
    """What a client is told."""
    status = next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    begin = DENIED if status is Status.PERMISSION_DENIED and isinstance(error, errors.AccessDenied) else ""
    return GRPCError(status, begin + " ".join(str(error).split())[:MAX_REASON])


def from_grpc(error: GRPCError, target: str) -> errors.InfraSightError:
    """What `target` told us."""
    text = error.message or error.status.name.lower().replace("_", " ")
    if error.status in (Status.UNIMPLEMENTED, Status.UNKNOWN):
        return errors.Unreachable(f"what answers at {target} is no InfraSight server of this version ({text})")
    if error.status is Status.PERMISSION_DENIED and text.startswith(DENIED):
        return errors.AccessDenied(text)
    for kind, status in STATUSES.items():
        if status is error.status and kind is not errors.InfraSightError:
            return kind(text)
    return errors.CallFailed(text)
