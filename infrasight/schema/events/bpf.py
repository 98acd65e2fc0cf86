"""Programs and maps inside the kernel."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import CALL, WHO

_COMMANDS = """
MAP_CREATE MAP_LOOKUP_ELEM MAP_UPDATE_ELEM MAP_DELETE_ELEM MAP_GET_NEXT_KEY PROG_LOAD OBJ_PIN OBJ_GET PROG_ATTACH PROG_DETACH PROG_TEST_RUN
PROG_GET_NEXT_ID MAP_GET_NEXT_ID PROG_GET_FD_BY_ID MAP_GET_FD_BY_ID OBJ_GET_INFO_BY_FD PROG_QUERY RAW_TRACEPOINT_OPEN BTF_LOAD BTF_GET_FD_BY_ID
TASK_FD_QUERY MAP_LOOKUP_AND_DELETE_ELEM MAP_FREEZE BTF_GET_NEXT_ID MAP_LOOKUP_BATCH MAP_LOOKUP_AND_DELETE_BATCH MAP_UPDATE_BATCH MAP_DELETE_BATCH
LINK_CREATE LINK_UPDATE LINK_GET_FD_BY_ID LINK_GET_NEXT_ID ENABLE_STATS ITER_CREATE LINK_DETACH PROG_BIND_MAP TOKEN_CREATE
"""
_MAP_TYPES = """
hash array prog_array perf_event_array percpu_hash percpu_array stack_trace cgroup_array lru_hash lru_percpu_hash lpm_trie array_of_maps
hash_of_maps devmap sockmap cpumap xskmap sockhash cgroup_storage reuseport_sockarray percpu_cgroup_storage queue stack sk_storage devmap_hash
struct_ops ringbuf inode_storage task_storage bloom_filter user_ringbuf cgrp_storage arena
"""
_PROGRAM_TYPES = """
socket_filter kprobe sched_cls sched_act tracepoint xdp perf_event cgroup_skb cgroup_sock lwt_in lwt_out lwt_xmit sock_ops sk_skb
cgroup_device sk_msg raw_tracepoint cgroup_sock_addr lwt_seg6local lirc_mode2 sk_reuseport flow_dissector cgroup_sysctl raw_tracepoint_writable
cgroup_sockopt tracing struct_ops ext lsm sk_lookup syscall netfilter
"""
COMMANDS = dict(enumerate(f"BPF_{name}" for name in _COMMANDS.split()))
"""enum bpf_cmd, include/uapi/linux/bpf.h."""
MAP_TYPES, PROGRAM_TYPES = (dict(enumerate(["", *names.split()])) for names in (_MAP_TYPES, _PROGRAM_TYPES))
"""enum bpf_map_type and enum bpf_prog_type; 0 is no type."""

BPF = Kind(
    "bpf",
    45,
    "The kernel's eBPF was asked to load a program, make a map and so on, or failed to (bpf). `ret` is a descriptor where one is made.",
    columns=(
        *WHO,
        *CALL,
        Column("command", Type.NAME, 20, "What was asked for: BPF_PROG_LOAD and so on, or its number.", names=COMMANDS),
        Column("prog_type", Type.NAME, 21, "For BPF_PROG_LOAD: kprobe, xdp and so on, or its number; else empty.", names=PROGRAM_TYPES),
        Column("map_type", Type.NAME, 22, "For BPF_MAP_CREATE: hash, array and so on, or its number; else empty.", names=MAP_TYPES),
        Column("name", Type.TEXT, 23, "Name of the program or map that is made, 15 bytes at most.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("command", "u32", "BPF_*"),
        Field("prog_type", "u32", "BPF_PROG_TYPE_*"),
        Field("map_type", "u32", "BPF_MAP_TYPE_*"),
    ),
    slots=(Slot("name", 16, 16, "name of the program or map", Source.OWN),),
    lane=Lane.SECURITY,
)
