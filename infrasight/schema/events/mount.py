"""File systems mounted and unmounted."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO, path_columns

CALLS = {0: "mount", 1: "move_mount", 2: "fsopen", 3: "fspick", 4: "fsconfig", 5: "fsmount", 6: "open_tree", 7: "mount_setattr"}
"""As bpf/mount.c numbers them."""
FSCONFIG = 4
COMMANDS = {
    0: "FSCONFIG_SET_FLAG",
    1: "FSCONFIG_SET_STRING",
    2: "FSCONFIG_SET_BINARY",
    3: "FSCONFIG_SET_PATH",
    4: "FSCONFIG_SET_PATH_EMPTY",
    5: "FSCONFIG_SET_FD",
    6: "FSCONFIG_CMD_CREATE",
    7: "FSCONFIG_CMD_RECONFIGURE",
    8: "FSCONFIG_CMD_CREATE_EXCL",
}
"""include/uapi/linux/mount.h."""

MOUNT = Kind(
    "mount",
    8,
    "A file system was mounted, remounted, bound or moved, or failed to be, at once (mount) or step by step (fsopen, fspick, fsconfig, fsmount, "
    "open_tree, move_mount, mount_setattr).",
    columns=(
        *WHO,
        *CALL,
        Column(
            "source",
            Type.TEXT,
            20,
            "What was mounted, as given: a device, a directory, a name. Of fsconfig, the value of the key `source`.",
            codec="ZSTD(1)",
        ),
        *path_columns("target", 30, "Where, as given. Of fspick, open_tree and mount_setattr, the mount or directory that is meant."),
        Column("fstype", Type.TEXT, 22, "File system type, as given to mount or fsopen; else empty."),
        Column(
            "flags",
            Type.U64,
            23,
            "The call's flags (include/uapi/linux/mount.h): MS_*, MOVE_MOUNT_*, FSOPEN_*, FSPICK_*, FSMOUNT_*, OPEN_TREE_*; AT_* for mount_setattr.",
            codec="ZSTD(1)",
        ),
        Column("call", Type.NAME, 24, "Which call it was: mount, move_mount, fsopen and so on.", names=CALLS),
        Column(
            "fd",
            Type.I32,
            25,
            "The descriptor that the call was given first: of what is configured, of the mount that is moved, or the directory that a path starts "
            "from (-100, AT_FDCWD, is the working directory). -1 for mount and fsopen. The one that a call makes is `ret`.",
            codec="ZSTD(1)",
        ),
        Column("command", Type.NAME, 26, "Of fsconfig: FSCONFIG_SET_STRING and so on, or its number; else empty."),
        Column("key", Type.TEXT, 27, "Of fsconfig: which parameter is set, as given.", codec="ZSTD(1)"),
        Column("value", Type.TEXT, 28, "Of fsconfig: its value, as given, when that is a string or a path.", codec="ZSTD(1)"),
        Column("aux", Type.I32, 29, "Of fsconfig: the last argument: a descriptor, or how long a binary value is.", codec="ZSTD(1)"),
        Column("attr_set", Type.U64, 40, "MOUNT_ATTR_* that fsmount or mount_setattr set (include/uapi/linux/mount.h).", codec="ZSTD(1)"),
        Column("attr_clr", Type.U64, 41, "MOUNT_ATTR_* that mount_setattr took away.", codec="ZSTD(1)"),
        Column("propagation", Type.U64, 42, "Of mount_setattr: MS_SHARED and so on, 0 to leave it.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("flags", "u64", "flags"),
        Field("attr_set", "u64", "MOUNT_ATTR_* set"),
        Field("attr_clr", "u64", "MOUNT_ATTR_* taken away"),
        Field("propagation", "u64", "MS_*"),
        Field("call", "u32", "which call"),
        Field("fd", "s32", "file descriptor"),
        Field("command", "u32", "FSCONFIG_*"),
        Field("aux", "s32", "last argument of fsconfig"),
    ),
    slots=(
        Slot("source", 80, PATH_MAX, "what is mounted, or a value"),
        Slot("target", 80, PATH_MAX, "where", Source.PATH),
        Slot("fstype", 64, 256, "file system type"),
        Slot("key", 64, 256, "key of fsconfig"),
    ),
    ring="file",
    lane=Lane.SECURITY,
)

UMOUNT = Kind(
    "umount",
    9,
    "A file system was unmounted, or failed to be (umount2).",
    columns=(
        *WHO,
        *CALL,
        *path_columns("target", 30, "What was unmounted, as given."),
        Column("flags", Type.U32, 21, "MNT_* flags (include/linux/fs.h).", codec="ZSTD(1)"),
    ),
    fields=(Field("flags", "u32", "flags"),),
    slots=(Slot("target", 80, PATH_MAX, "what is unmounted", Source.PATH),),
    ring="file",
    lane=Lane.SECURITY,
)
