/*
 * A small web server on the loopback and its clients: N requests from C processes, K on a connection. Each request is answered with a file, opened
 * and sent anew: accept, epoll, recv, open, fstat, send, sendfile, close, as servers of files do.
 */
#include "workload.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { BODY_BYTES = 2048, HEAD_BYTES = 512, EVENTS = 64, SILENCE_MS = 10000 };
static const char LAST[] = "Connection: close";
static char page[256];

static void serve_file(int connection)
{
    char head[HEAD_BYTES];
    struct stat st;
    int fd = open(page, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        refuse("%s: %s", page, strerror(errno));
    int bytes = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %lld\r\n\r\n", (long long)st.st_size);
    if (send(connection, head, (size_t)bytes, MSG_MORE | MSG_NOSIGNAL) != bytes || sendfile(connection, fd, NULL, BODY_BYTES) != st.st_size)
        refuse("a client went away: %s", strerror(errno));
    close(fd);
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        refuse("epoll: %s", strerror(errno));
}

/* Until `count` requests are answered; gives how many connections there were. A request is short enough to come in one piece. */
static long serve(int listener, long count)
{
    struct epoll_event events[EVENTS];
    char request[HEAD_BYTES];
    long connections = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll, listener);
    while (count) {
        int ready = epoll_wait(epoll, events, EVENTS, SILENCE_MS);
        if (ready <= 0)
            refuse("%ld requests never came", count);
        for (int k = 0; k < ready; k++) {
            int fd = events[k].data.fd;
            if (fd == listener) {
                watch(epoll, accept4(listener, NULL, NULL, SOCK_CLOEXEC));
                connections++;
                continue;
            }
            ssize_t bytes = recv(fd, request, sizeof(request) - 1, 0);
            if (bytes <= 0)
                refuse("a client ended early: %s", strerror(errno));
            request[bytes] = 0;
            serve_file(fd);
            count--;
            if (strstr(request, LAST))
                close(fd); /* first, so that the waiting of TCP is on this side, whose port nobody needs again */
        }
    }
    return connections;
}

static void ask(int connection, int is_last)
{
    char text[HEAD_BYTES + BODY_BYTES];
    const char *body = NULL;
    int bytes = snprintf(text, sizeof(text), "GET /page HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n", is_last ? LAST : "Accept: text/html");
    if (send(connection, text, (size_t)bytes, MSG_NOSIGNAL) != bytes)
        _exit(3);
    for (ssize_t got = 0, more; !body || got - (body + 4 - text) < BODY_BYTES; got += more) {
        more = recv(connection, text + got, sizeof(text) - (size_t)got - 1, 0);
        if (more <= 0)
            _exit(3);
        text[got + more] = 0;
        body = body ? body : strstr(text, "\r\n\r\n");
    }
}

static __attribute__((noreturn)) void be_client(const struct sockaddr_in *server, long count, long keep)
{
    struct timeval patience = {.tv_sec = SILENCE_MS / 1000};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (count) {
        int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        if (connect(connection, (const struct sockaddr *)server, sizeof(*server)))
            _exit(3);
        for (long left = count < keep ? count : keep; left; left--, count--)
            ask(connection, left == 1);
        close(connection);
    }
    _exit(0);
}

static void make_page(const char *dir)
{
    char body[BODY_BYTES];
    memset(body, '.', sizeof(body));
    snprintf(page, sizeof(page), "%s/page", dir);
    int fd = open(page, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, body, sizeof(body)) != sizeof(body) || close(fd))
        refuse("%s: %s", page, strerror(errno));
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"clients", 1, 0, 'c'}, {"keep", 1, 0, 'k'}, {"dir", 1, 0, 'd'}, {0}};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    long count = 0, clients = 4, keep = 10;
    const char *dir = NULL;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = atol(optarg); break;
        case 'c': clients = atol(optarg); break;
        case 'k': keep = atol(optarg); break;
        case 'd': dir = optarg; break;
        default: return 2;
        }
    }
    if (!dir || clients < 1 || clients > EVENTS || count < clients || keep < 1)
        refuse("usage: http --count REQUESTS --dir DIR [--clients C] [--keep K: requests on a connection]");
    make_page(dir);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, EVENTS) || getsockname(listener, (struct sockaddr *)&address, &length))
        refuse("cannot listen: %s", strerror(errno));

    unsigned long long start = clock_ns(CLOCK_MONOTONIC);
    for (long k = 0; k < clients; k++) {
        pid_t child = fork();
        if (child < 0)
            refuse("fork: %s", strerror(errno));
        if (child == 0)
            be_client(&address, count / clients + (k < count % clients), keep);
    }
    long connections = serve(listener, count);
    for (int status = 0; wait(&status) > 0;)
        if (status)
            refuse("a client failed: status %d", status);
    unsigned long long elapsed = clock_ns(CLOCK_MONOTONIC) - start;
    printf("{\"workload\": \"http\", \"pid\": %d, \"requests\": %ld, \"connections\": %ld, \"elapsed_ns\": %llu, \"ns_per_request\": %.1f}\n", getpid(),
           count, connections, elapsed, (double)elapsed / (double)count);
    return 0;
}
