"""Users and groups changed."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import CALL, WHO

CALLS = dict(enumerate(["setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid"], 1))
"""`call` of a record (bpf/setid.c)."""
_COLUMNS = {
    "real": "Real id asked for",
    "effective": "Effective id asked for; setuid and setgid by root set the other two as well",
    "saved": "Saved id asked for",
    "filesystem": "Id for access to files asked for (setfsuid, setfsgid)",
    "real_before": "Real id before the call",
    "effective_before": "Effective id before the call",
    "saved_before": "Saved id before the call",
}

SETID = Kind(
    "setid",
    48,
    "A thread changed its user or group ids, or failed to (setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid, setfsgid). "
    "All ids here are of users or of groups, as the call is; those asked for are 4294967295 where the call leaves them as they are. `uid`, "
    "`gid` and `euid` are those afterwards.",
    columns=(
        *WHO,
        *CALL,
        Column("call", Type.NAME, 20, "The system call.", names=CALLS),
        *(Column(name, Type.U32, number, f"{doc}.", codec="ZSTD(1)") for number, (name, doc) in enumerate(_COLUMNS.items(), 21)),
    ),
    fields=(Field("call", "u32", "which call"), *(Field(name, "u32", doc) for name, doc in _COLUMNS.items())),
    lane=Lane.SECURITY,
)
