/*
 * Rules on paths: whether a file lies below a directory that is on a list, by the names that lead to it, however it was spelled. The names of a place come
 * the file's own first, so the prefixes are got by taking suffixes away from the whole.
 */

#define HASH_BYTE(hash, byte) (((hash) ^ (byte)) * 0x100000001b3ULL) /* FNV-1a */
#define HASH_START 0xcbf29ce484222325ULL
#define HASH_PLACE 0x9e3779b97f4a7c15ULL
#define PREFIX_DEPTH_MAX 32

/* The paths that lead to a file: prefix[k] is that of its first k names. All work on them is done in memory: the verifier would follow each value by itself. */
struct prefixes {
    u64 prefix[PREFIX_DEPTH_MAX + 1];
    u64 power[PREFIX_DEPTH_MAX + 1]; /* HASH_PLACE to the power of k */
    u64 suffix[PREFIX_DEPTH_MAX + 1];
    u64 depth;
    u64 floor; /* names that `..` does not take away: those of the root */
    u64 name;
    u64 length;
    u64 dots;
    u32 string_len;
    u32 names_len;
    u8 string[256];
    u8 names[256];
};
BPF_PERCPU_ARRAY(prefixes, struct prefixes, 1);

/* A name ends: it becomes one more of the path, unless it is `.`, or takes one away when it is `..`. */
static __always_inline void prefix_name(volatile struct prefixes *p)
{
    u64 depth = p->depth;
    if (p->length == 2 && p->dots == 2) {
        p->depth = depth > p->floor ? depth - 1 : depth;
    } else if (p->length && !(p->length == 1 && p->dots == 1)) {
        if (depth < PREFIX_DEPTH_MAX) {
            u64 place = depth & 31;
            p->power[place + 1] = p->power[place] * HASH_PLACE;
            p->prefix[place + 1] = p->prefix[place] + p->name * p->power[place];
        }
        p->depth = depth + 1;
    }
    p->name = HASH_START;
    p->length = p->dots = 0;
}

static __always_inline void prefix_byte(volatile struct prefixes *p, u8 byte)
{
    p->name = HASH_BYTE(p->name, byte);
    p->length += 1;
    p->dots += byte == '.';
}

/* Start from a place, whose names come the file's own first: prefixes out of suffixes. */
static __always_inline void prefix_place(volatile struct prefixes *p, u8 *names, u32 length, u32 room)
{
    p->depth = 0;
    p->suffix[0] = 0;
    for (u32 at = 0; at < room; at++) {
        if (at >= length)
            break;
        if (names[at]) {
            prefix_byte(p, names[at]);
            continue;
        }
        u64 depth = p->depth;
        if (!p->length)
            continue; /* the root itself */
        if (depth >= PREFIX_DEPTH_MAX)
            break;
        p->suffix[(depth & 31) + 1] = p->name + p->suffix[depth & 31] * HASH_PLACE;
        p->depth = depth + 1;
        p->name = HASH_START;
        p->length = p->dots = 0;
    }
    u64 power = 1, depth = p->depth, whole = depth <= PREFIX_DEPTH_MAX ? p->suffix[depth] : 0;
    for (u64 k = 0; k <= PREFIX_DEPTH_MAX; k++) {
        if (k > depth)
            break;
        u64 rest = depth - k;
        BOUND(rest, PREFIX_DEPTH_MAX);
        p->power[k] = power;
        p->prefix[k] = whole - power * p->suffix[rest];
        power *= HASH_PLACE;
    }
}

static __always_inline void prefix_string(volatile struct prefixes *p, u8 *path, u32 length, u32 room)
{
    for (u32 at = 0; at < room; at++) {
        if (at >= length || !path[at])
            break;
        if (path[at] == '/')
            prefix_name(p);
        else
            prefix_byte(p, path[at]);
    }
    prefix_name(p);
}

static __always_inline struct prefixes *prefixes_of_cpu(void)
{
    u32 zero = 0;
    return prefixes.lookup(&zero);
}

static __always_inline bool prefixes_walk(struct prefixes *p, struct place place) { return walk(p->names, sizeof(p->names), &p->names_len, place, 24); }

/* Whether what is in `names`, and, unless that is the file itself, in `string`, is to be told. `flags`: what the names are. */
static __always_inline bool passes_prefixes(struct prefixes *p, u32 probe, u32 flags)
{
    u32 kinds = rule_kinds(probe);
    p->name = HASH_START;
    p->length = p->dots = 0;
    prefix_place(p, p->names, p->names_len, sizeof(p->names));
    p->floor = flags & PLACE_CONFINED || (p->string_len && p->string[0] == '/') ? p->depth : 0;
    if (!(flags & PLACE_WHOLE))
        prefix_string(p, p->string, p->string_len, sizeof(p->string));
    u64 bit = 1ULL << probe;
    volatile u32 allowed = !(kinds & ALLOW_PATH);
    for (u64 depth = 0; depth <= PREFIX_DEPTH_MAX; depth++) {
        if (depth > p->depth)
            break;
        struct prefix key = {.hash = p->prefix[depth], .depth = depth};
        struct listed *listed = listed_paths.lookup(&key);
        if (!listed)
            continue;
        if (listed->deny & bit)
            return false;
        if (listed->allow & bit)
            allowed = 1;
    }
    return allowed;
}

/* Whether a path is to be told. One that is too long to be sure of is. */
static __always_inline bool passes_path(u32 probe, struct path path)
{
    struct prefixes *p = prefixes_of_cpu();
    if (!p || !put_string(p->string, sizeof(p->string), &p->string_len, path.string))
        return true;
    if (!prefixes_walk(p, place_of_path(path, *(volatile u32 *)&p->string_len ? p->string[0] : 0)))
        return true;
    return passes_prefixes(p, probe, place_flags(path));
}

#if SLOTS_MAX > 1
/* The same of a path that the probe has read itself, as it has of a unix socket. What has no path is on no list. */
static __always_inline bool passes_own_path(struct draft *draft)
{
    struct prefixes *p = prefixes_of_cpu();
    struct place place = draft->sources[1].place;
    u64 length = draft->own_length;
    BOUND(length, sizeof(p->string));
    if (!p)
        return true;
    if (draft->own_whole ? !place.dentry : !length || !draft->own[0])
        return !(draft->kinds & ALLOW_PATH);
    bpf_probe_read_kernel(p->string, length, draft->own);
    p->string_len = length;
    return !prefixes_walk(p, place) || passes_prefixes(p, draft->probe, draft->own_whole ? PLACE_WHOLE : 0);
}
#else
static __always_inline bool passes_own_path(struct draft *draft) { return true; }
#endif

/* then on paths, of which one that passes is enough: a run of this program for each. */
int pass_paths(struct bpf_raw_tracepoint_args *ctx)
{
    struct draft *draft = draft_of_cpu();
    if (!draft || !draft->paths)
        return 0;
    if (draft->paths & OWN_PATH) {
        if (passes_own_path(draft))
            draft_pass_rate(ctx, draft);
        return 0;
    }
    u32 slot = draft->paths & 1 ? 0 : draft->paths & 2 ? 1 : 2;
    if (slot < SLOTS_MAX && passes_path(draft->probe, draft->sources[slot].path))
        draft_pass_rate(ctx, draft);
    draft->paths &= draft->paths - 1;
    programs.call(ctx, PROGRAM_PASS_PATHS);
    return 0;
}
