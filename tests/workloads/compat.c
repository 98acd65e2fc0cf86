/* System calls as 32-bit programs make them, from a 64-bit one: `int $0x80`, with everything that is pointed to below 4 GiB. */
#include "workload.h"
#ifdef __x86_64__
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* Numbers of arch/x86/entry/syscalls/syscall_32.tbl. */
enum { OPEN = 5, CREAT = 8, EXECVE = 11, CHMOD = 15, MOUNT = 21, UMOUNT = 22, PTRACE = 26, UMOUNT2 = 52, OLD_MMAP = 90, FCHMOD = 94, SOCKETCALL = 102 };
enum { MMAP2 = 192, OPENAT = 295, FCHMODAT = 306, CONNECT = 362, OPENAT2 = 437 };
enum { ROOM = 1 << 16, MARK = 0x5a5a };

static char *low, *next; /* memory that 32 bits can point to */

static unsigned keep(const void *bytes, size_t size)
{
    void *place = next;
    next += (size + 15) / 16 * 16;
    if (next > low + ROOM)
        refuse("too much to keep");
    memcpy(place, bytes, size);
    return (unsigned)(unsigned long)place;
}

static unsigned text(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s%s%s", dir, *dir ? "/" : "", name);
    return keep(path, strlen(path) + 1);
}

static int calls;

static int call(const char *name, long number, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f)
{
    register unsigned long sixth __asm__("r12") = f;
    long ret = number;
    /* The sixth argument travels in the register of the frame. */
    __asm__ volatile("xchg %%r12, %%rbp\n\tint $0x80\n\txchg %%r12, %%rbp"
                     : "+a"(ret), "+r"(sixth)
                     : "b"((unsigned long)a), "c"((unsigned long)b), "d"((unsigned long)c), "S"((unsigned long)d), "D"((unsigned long)e)
                     : "memory", "r8", "r9", "r10", "r11");
    printf("%s{\"call\": \"%s\", \"number\": %ld, \"ret\": %d}", calls++ ? ", " : "", name, number, (int)ret);
    return (int)ret;
}

static void files(const char *dir)
{
    unsigned long long how[3] = {O_RDONLY | O_NOFOLLOW, 0, 0};
    int fd = call("open", OPEN, text(dir, "file"), O_CREAT | O_RDWR, 0640, 0, 0, 0);
    call("openat", OPENAT, AT_FDCWD, text(dir, "absent"), O_WRONLY, 0, 0, 0);
    call("openat2", OPENAT2, AT_FDCWD, text(dir, "file"), keep(how, sizeof(how)), sizeof(how), 0, 0);
    call("creat", CREAT, text(dir, "made"), 0604, 0, 0, 0, 0);
    call("chmod", CHMOD, text(dir, "file"), 0611, 0, 0, 0, 0);
    call("fchmod", FCHMOD, fd, 0612, 0, 0, 0, 0);
    call("fchmodat", FCHMODAT, AT_FDCWD, text(dir, "absent"), 0613, 0, 0, 0);
    call("mount", MOUNT, text("", "a name"), text(dir, "absent"), text("", "tmpfs"), 6, 0, 0);
    call("umount", UMOUNT, text(dir, "file"), MARK, 0, 0, 0, 0); /* which takes no flags, whatever lies there */
    call("umount2", UMOUNT2, text(dir, "absent"), 2, 0, 0, 0, 0);
}

static void sockets(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    unsigned address = keep(&to, sizeof(to)), arguments[3] = {fd, address, sizeof(to)};
    if (fd < 0)
        refuse("no socket: %s", strerror(errno));
    call("connect", CONNECT, fd, address, sizeof(to), 0, 0, 0);
    call("connect", SOCKETCALL, 3, keep(arguments, sizeof(arguments)), 0, 0, 0, 0);
}

static void memory(int fd)
{
    unsigned arguments[6] = {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 4096};
    call("mmap", OLD_MMAP, keep(arguments, sizeof(arguments)), 0, 0, 0, 0, 0);
    call("mmap", MMAP2, 0, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 2); /* in pages */
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"dir", 1, 0, 'd'}, {"port", 1, 0, 'p'}, {"executable", 1, 0, 'e'}, {0}};
    const char *dir = NULL, *executable = NULL;
    int port = 0;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'd': dir = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'e': executable = optarg; break;
        default: return 2;
        }
    }
    if (!dir || !port || !executable)
        refuse("usage: compat --dir DIR --port PORT --executable FILE");
    low = next = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED)
        refuse("no memory below 4 GiB: %s", strerror(errno));
    int fd = open(executable, O_RDONLY);
    if (fd < 0)
        refuse("cannot open %s: %s", executable, strerror(errno));

    printf("{\"workload\": \"compat\", \"pid\": %d, \"fd\": %d, \"calls\": [", getpid(), fd);
    files(dir);
    sockets(port);
    memory(fd);
    unsigned words[4] = {text("", "this"), text("", "fails"), text("", ""), 0};
    call("execve", EXECVE, text(dir, "absent"), keep(words, sizeof(words)), 0, 0, 0, 0);
    call("ptrace", PTRACE, 16, (1 << 22) + 5, 7, 11, 0, 0);
    printf("]}\n");
    return 0;
}
#else
int main(void) { refuse("this machine has no calls of 32-bit programs"); }
#endif
