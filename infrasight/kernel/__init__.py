"""The kernel side, from Python: the only room that touches BCC, BTF, ring buffers and maps.

Belongs here: assembling and loading bpf/ (`source`, `loader`), reading rings and counters (`ring`, `percpu`), what the running kernel offers (`btf`,
`offsets`, `check`). Does not belong here: what the records mean.
"""

from infrasight.kernel.check import check
from infrasight.kernel.records import Records
from infrasight.kernel.ring import Ring
from infrasight.kernel.syscalls import names as syscall_names
from infrasight.kernel.tracing import Tracing, trace

__all__ = ["Records", "Ring", "Tracing", "check", "syscall_names", "trace"]
