/* capset: whose, and what they are to be (include/uapi/linux/capability.h). */

#define CAPABILITY_VERSION_1 0x19980330 /* 32 capabilities; later ones have 64 */

struct capset_header {
    u32 version;
    s32 pid;
};
struct capset_words {
    u32 effective;
    u32 permitted;
    u32 inheritable;
};

EXIT(capset, capset)
{
    struct capset *event = capset_begin(call, ret);
    if (!event)
        return;
    struct capset_header header = {};
    struct capset_words low = {}, high = {};
    bpf_probe_read_user(&header, sizeof(header), (void *)ARG(0));
    bpf_probe_read_user(&low, sizeof(low), (void *)ARG(1));
    if (header.version != CAPABILITY_VERSION_1)
        bpf_probe_read_user(&high, sizeof(high), (void *)(ARG(1) + sizeof(low)));
    event->target_pid = header.pid;
    event->effective = (u64)high.effective << 32 | low.effective;
    event->permitted = (u64)high.permitted << 32 | low.permitted;
    event->inheritable = (u64)high.inheritable << 32 | low.inheritable;
    capset_submit(ctx);
}
