/* bind: the address asked for, and the socket's own end as it is then. */

EXIT(bind, bind)
{
    struct bind *event = bind_begin(call, ret);
    if (!event)
        return;
    struct socket_fields *fields = socket_fields(event, ARG(0));
    struct address address = {};
    struct place place = {};
    read_address(&address, ARG(1), (u32)ARG(2));
    socket_address(fields, &address);
    u64 sock = sock_of_fd(current_task(), ARG(0));
    if (sock)
        socket_local(fields, sock);
    if (address.family == AF_UNIX) {
        unix_address_given(event, &address, ARG(2));
        place = unix_start(event);
        /* What the kernel made of it cannot be changed by another thread, and is there too when it has chosen a name itself. */
        if (ret >= 0 && fields->socket_family == AF_UNIX)
            event->path_whole = unix_bound(event, &place, sock);
    }
    if (passes_address(PROBE_BIND, address.family, fields->daddr))
        bind_submit(ctx, place);
}
