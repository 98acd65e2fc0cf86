/* bpf: which command; of programs and maps that are made, also of what type and by what name (union bpf_attr, include/uapi/linux/bpf.h). */

#define BPF_COMMAND_MAP_CREATE 0
#define BPF_COMMAND_PROG_LOAD 5
#define BPF_NAME_BYTES 16
#define BPF_MAP_NAME_AT 28
#define BPF_PROG_NAME_AT 48

/* What the caller has said of it: programs before Linux 4.15 knew no names. */
static __always_inline void bpf_made(struct draft *draft, struct call *call, u32 *type, u32 name_at)
{
    bpf_probe_read_user(type, sizeof(*type), (void *)ARG(1));
    if ((u32)ARG(2) < name_at + BPF_NAME_BYTES)
        return;
    long size = bpf_probe_read_user_str(draft->own, BPF_NAME_BYTES, (void *)(ARG(1) + name_at));
    draft->own_length = size > 0 ? size - 1 : 0;
}

EXIT(bpf, bpf)
{
    struct bpf *event = bpf_begin(call, ret);
    struct draft *draft = draft_of_cpu();
    if (!event || !draft)
        return;
    event->command = ARG(0);
    if (event->command == BPF_COMMAND_PROG_LOAD)
        bpf_made(draft, call, &event->prog_type, BPF_PROG_NAME_AT);
    else if (event->command == BPF_COMMAND_MAP_CREATE)
        bpf_made(draft, call, &event->map_type, BPF_MAP_NAME_AT);
    bpf_submit(ctx);
}
