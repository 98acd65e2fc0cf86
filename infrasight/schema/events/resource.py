"""What processes use."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import INTERVAL, WHO

_COUNTERS = {
    "cpu_ns": ("Processor time, of all its threads.", "ns"),
    "voluntary_switches": ("Times that a thread gave up the processor to wait.", ""),
    "involuntary_switches": ("Times that the processor was taken from a thread.", ""),
    "user_faults": ("Page faults in user mode, and pages that the kernel reached for without one.", ""),
    "kernel_faults": ("Page faults in the kernel on its behalf; those of both kinds are minflt and majflt of /proc/PID/stat.", ""),
    "mapped_bytes": ("Memory mapped: mmap, and mremap that grew.", "bytes"),
    "unmapped_bytes": ("Memory unmapped: munmap, and mremap that shrank.", "bytes"),
    "brk_grown_bytes": ("Heap grown by brk.", "bytes"),
    "brk_shrunk_bytes": ("Heap shrunk by brk.", "bytes"),
    "bytes_read": ("Bytes read by the read family, sendfile and copy_file_range, whatever from, not splice (rchar of /proc/PID/io).", "bytes"),
    "bytes_written": ("Bytes written by the write family, sendfile and copy_file_range, whatever to (wchar of /proc/PID/io).", "bytes"),
    "bytes_received": ("Bytes received by the recv family, which is not counted among those read.", "bytes"),
    "bytes_sent": ("Bytes sent by the send family, which is not counted among those written.", "bytes"),
}
"""Counter -> meaning, unit."""

RESOURCE = Kind(
    "resource",
    10,
    "What a process used of the machine since its last row: one row in each interval in which it used anything, and one more when it ends. Kernel "
    "threads are left out, and what io_uring does for a process.",
    columns=(
        *WHO,
        *INTERVAL,
        *(Column(name, Type.U64, 20 + place, doc, unit, "ZSTD(1)") for place, (name, (doc, unit)) in enumerate(_COUNTERS.items())),
    ),
    fields=(*(Field(name, "u64", doc) for name, (doc, _) in _COUNTERS.items()), Field("interval", "u32", "when `who` was last looked at")),
    ring="resource",
    composed=True,
    account=True,
    lane=Lane.TELEMETRY,
)
