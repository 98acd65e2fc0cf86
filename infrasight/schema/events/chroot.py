"""Root directories changed."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO, path_columns

CALLS = {0: "chroot", 1: "pivot_root"}
"""As bpf/chroot.c numbers them."""

CHROOT = Kind(
    "chroot",
    25,
    "A process got another root directory, or a mount namespace another root, or failed to (chroot, pivot_root).",
    columns=(
        *WHO,
        *CALL,
        Column("call", Type.NAME, 20, "Which call it was: chroot or pivot_root.", names=CALLS),
        *path_columns("path", 30, "The new root, as given. Of a relative one, where it leads afterwards: `.` may be `/` after a pivot_root."),
        *path_columns("put_old", 32, "Where the old root goes, as given; empty for chroot."),
    ),
    fields=(Field("call", "u32", "which call"),),
    slots=(
        Slot("path", 80, PATH_MAX, "the new root", Source.PATH),
        Slot("put_old", 80, PATH_MAX, "where the old root goes", Source.PATH),
    ),
    ring="file",
    lane=Lane.SECURITY,
)
