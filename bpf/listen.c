/* listen */

EXIT(listen, listen)
{
    struct listen *event = listen_begin(call, ret);
    if (!event)
        return;
    struct socket_fields *fields = socket_fields(event, ARG(0));
    struct place place = {};
    event->backlog = ARG(1);
    u64 sock = sock_of_fd(current_task(), ARG(0));
    if (sock) {
        socket_local(fields, sock);
        fields->family = fields->socket_family;
        if (fields->family == AF_UNIX)
            event->path_whole = unix_bound(event, &place, sock);
    }
    if (passes_address(PROBE_LISTEN, fields->family, fields->saddr))
        listen_submit(ctx, place);
}
