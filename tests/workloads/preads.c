/* Reads blocks of 4 KiB at random out of a file that is in the page cache, as fio's randread does: one pread a block. */
#include "workload.h"
#include <fcntl.h>
#include <stdint.h>

enum { BLOCK = 4096, BLOCKS_PER_MIB = 256 };

/* Block k begins with k, so that a read can be checked. It is written just now: so it is in the page cache. */
static void fill(int fd, uint64_t blocks)
{
    static uint64_t block[BLOCK / sizeof(uint64_t)];
    for (block[0] = 0; block[0] < blocks; block[0]++)
        if (write(fd, block, BLOCK) != BLOCK)
            refuse("--dir: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"count", 1, 0, 'n'}, {"dir", 1, 0, 'd'}, {"mib", 1, 0, 'm'}, {"cpu", 1, 0, 'c'}, {0}};
    static uint64_t block[BLOCK / sizeof(uint64_t)];
    const char *dir = NULL;
    char path[256];
    long count = 0, mib = 64;
    for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'n': count = atol(optarg); break;
        case 'd': dir = optarg; break;
        case 'm': mib = atol(optarg); break;
        case 'c': stand_on(atoi(optarg)); break;
        default: return 2;
        }
    }
    if (count < 1 || !dir || mib < 1)
        refuse("usage: preads --count N --dir DIR [--mib M: size of the file] [--cpu C]");
    snprintf(path, sizeof(path), "%s/blocks", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || unlink(path))
        refuse("%s: %s", path, strerror(errno));
    uint64_t blocks = (uint64_t)mib * BLOCKS_PER_MIB, random = 1;
    fill(fd, blocks);

    unsigned long long start = clock_ns(CLOCK_MONOTONIC);
    for (long k = 0; k < count; k++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL; /* Knuth's; the high bits are the good ones */
        uint64_t at = (random >> 32) % blocks;
        if (pread(fd, block, BLOCK, (off_t)(at * BLOCK)) != BLOCK || block[0] != at)
            refuse("block %llu: %s", (unsigned long long)at, strerror(errno));
    }
    unsigned long long elapsed = clock_ns(CLOCK_MONOTONIC) - start;
    printf("{\"workload\": \"preads\", \"pid\": %d, \"reads\": %ld, \"bytes\": %lld, \"elapsed_ns\": %llu, \"ns_per_read\": %.1f}\n", getpid(),
           count, (long long)count * BLOCK, elapsed, (double)elapsed / (double)count);
    return 0;
}
