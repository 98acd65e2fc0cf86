/* io_uring_setup */

/* The start of struct io_uring_params, include/uapi/linux/io_uring.h; the kernel writes all but the flags. */
struct io_uring_params {
    u32 sq_entries;
    u32 cq_entries;
    u32 flags;
    u32 sq_thread_cpu;
    u32 sq_thread_idle;
    u32 features;
};

EXIT(io_uring_setup, io_uring_setup)
{
    struct io_uring_setup *event = io_uring_setup_begin(call, ret);
    if (!event)
        return;
    struct io_uring_params params = {};
    bpf_probe_read_user(&params, sizeof(params), (void *)ARG(1));
    event->entries = ARG(0);
    event->flags = params.flags;
    event->features = ret < 0 ? 0 : params.features;
    io_uring_setup_submit(ctx);
}
