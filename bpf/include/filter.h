/*
 * What is told: rules for each probe, which the node writes and may change at any time (infrasight/kernel/rules.py). A probe without rules costs one load.
 */

/* Bits of struct rule's `kinds`. */
enum {
    ALLOW_UID = 1,
    DENY_UID = 2,
    ALLOW_COMM = 4,
    DENY_COMM = 8,
    ALLOW_CGROUP = 16,
    DENY_CGROUP = 32,
    ALLOW_PATH = 64,
    DENY_PATH = 128,
    ALLOW_ADDRESS = 256,
    DENY_ADDRESS = 512,
    ONLY_FAILED = 1024,
    ONLY_SUCCEEDED = 2048,
    REPEATS = 4096,
    RATE = 8192,
    ALL = 16384, /* told also where it is not by default (mmap that is not executable) */
};
#define ON_PATH (ALLOW_PATH | DENY_PATH)
#define ON_WHO (ALLOW_UID | DENY_UID | ALLOW_COMM | DENY_COMM | ALLOW_CGROUP | DENY_CGROUP)
#define ON_ADDRESS (ALLOW_ADDRESS | DENY_ADDRESS)

struct rule {
    u32 enabled;
    u32 kinds;
    u64 repeats_ns;    /* the same again within this time is counted, not told */
    u64 rate_every_ns; /* between two events of a probe and cgroup, in the long run */
    u64 rate_burst_ns; /* how far ahead of that they may be */
};
BPF_ARRAY(rules, struct rule, PROBES);

/* For which probes (a bit each) a value is on a list. */
struct listed {
    u64 allow;
    u64 deny;
};
_Static_assert(PROBES <= 64, "a bit for each probe");

struct comm {
    u64 halves[2];
};
struct network {
    u32 bits; /* of family and address that are meant */
    u32 family;
    u8 address[16];
};
/* A path of `depth` names, by the sum of their hashes, each times a constant to the power of its place. */
struct prefix {
    u64 hash;
    u64 depth;
};
struct bucket {
    u64 cgroup_id;
    u64 probe;
};
BPF_HASH(listed_uids, u32, struct listed, LISTED_MAX);
BPF_HASH(listed_comms, struct comm, struct listed, LISTED_MAX);
BPF_HASH(listed_cgroups, u64, struct listed, LISTED_MAX);
BPF_HASH(listed_paths, struct prefix, struct listed, LISTED_MAX);
BPF_LPM_TRIE(listed_networks, struct network, struct listed, LISTED_MAX);
BPF_TABLE("lru_hash", u64, u64, repeats, REPEATS_REMEMBERED);
BPF_TABLE("lru_hash", struct bucket, u64, buckets, BUCKETS_REMEMBERED);

static __always_inline struct rule *rule_of(u32 probe)
{
    struct rule *rule = rules.lookup(&probe);
    return rule && rule->enabled ? rule : 0;
}

/* Whether lists of one kind let something through: `allow` and `deny` are its two bits, `listed` what is said of the value. */
static __always_inline bool passes(u32 kinds, u32 allow, u32 deny, u32 probe, struct listed *listed)
{
    u64 bit = 1ULL << probe;
    if (kinds & allow && !(listed && listed->allow & bit))
        return false;
    return !(kinds & deny && listed && listed->deny & bit);
}

static __always_inline bool passes_who(u32 kinds, u32 probe, u64 task)
{
    if (kinds & (ALLOW_UID | DENY_UID)) {
        u32 uid = FIELD(u32, FIELD(u64, task, TASK_CRED), CRED_UID);
        if (!passes(kinds, ALLOW_UID, DENY_UID, probe, listed_uids.lookup(&uid)))
            return false;
    }
    if (kinds & (ALLOW_COMM | DENY_COMM)) {
        struct comm comm = {};
        bpf_get_current_comm(&comm, sizeof(comm));
        if (!passes(kinds, ALLOW_COMM, DENY_COMM, probe, listed_comms.lookup(&comm)))
            return false;
    }
    if (kinds & (ALLOW_CGROUP | DENY_CGROUP)) {
        u64 cgroup_id = cgroup_of(task);
        if (!passes(kinds, ALLOW_CGROUP, DENY_CGROUP, probe, listed_cgroups.lookup(&cgroup_id)))
            return false;
    }
    return true;
}

/* Whether a call that ended so is to be told, by what is quickly known; `kinds` are those of the probe's rule. */
static __always_inline bool passes_outcome(u32 kinds, s64 ret)
{
    if (kinds & ONLY_FAILED)
        return ret < 0;
    return !(kinds & ONLY_SUCCEEDED && ret < 0);
}

static __always_inline u32 rule_kinds(u32 probe)
{
    struct rule *rule = rules.lookup(&probe);
    return rule ? rule->kinds : 0;
}

static __always_inline bool has_rule(u32 probe, u32 kinds) { return rule_kinds(probe) & kinds; }

/* Whether memory of this protection is to be told: that which can be executed, by an old program's wish also what can be read; all of it with ALL. */
static __always_inline bool passes_protection(u32 probe, u64 task, u64 prot)
{
    if (prot & PROT_EXEC || has_rule(probe, ALL))
        return true;
    return prot & PROT_READ && FIELD(u32, task, TASK_PERSONALITY) & READ_IMPLIES_EXEC;
}

/* Whether an IPv6 address stands for an IPv4 one: ::ffff:a.b.c.d. */
static __always_inline bool is_mapped_ipv4(u8 *address)
{
    u64 words[2];
    __builtin_memcpy(words, address, 16);
    return !words[0] && (u32)words[1] == 0xffff0000;
}

/* An address of a family, told so far; others pass unless there is a list of what to tell. */
static __always_inline bool passes_address(u32 probe, u32 family, u8 *address)
{
    struct rule *rule = rules.lookup(&probe);
    if (!rule || !(rule->kinds & ON_ADDRESS))
        return true;
    struct network key = {.bits = 160, .family = family};
    if (family == AF_INET) {
        __builtin_memcpy(key.address, address, 4);
    } else if (family == AF_INET6 && is_mapped_ipv4(address)) {
        key.family = AF_INET;
        __builtin_memcpy(key.address, address + 12, 4);
    } else if (family == AF_INET6) {
        __builtin_memcpy(key.address, address, 16);
    } else {
        return !(rule->kinds & ALLOW_ADDRESS);
    }
    return passes(rule->kinds, ALLOW_ADDRESS, DENY_ADDRESS, probe, listed_networks.lookup(&key));
}

static __always_inline u64 hash_word(u64 hash, u64 word)
{
    hash = (hash ^ word) * 0xbf58476d1ce4e5b9ULL; /* splitmix64 */
    return hash ^ hash >> 29;
}

static __always_inline u64 hash_string(u64 hash, u8 *string, u32 length, u32 room)
{
    hash = hash_word(hash, length);
    for (u32 at = 0; at < room; at += 8) {
        if (at >= length)
            break;
        u64 word = *(u64 *)(string + at), rest = length - at;
        if (rest < 8)
            word &= (1ULL << (rest * 8)) - 1;
        hash = hash_word(hash, word);
    }
    return hash;
}

/* What makes two events the same so far: process, probe and how it went. */
static __always_inline u64 hash_head(struct head *head)
{
    u64 hash = hash_word(head->start_ns, (u64)head->pid << 32 | head->probe);
    return hash_word(hash, head->ret < 0 ? head->ret : 0);
}

/* Whether the same was told a moment ago; if so it is counted. */
static __always_inline bool repeated(u32 probe, u64 hash)
{
    u64 now = bpf_ktime_get_ns(), *last = repeats.lookup(&hash);
    struct rule *rule = rules.lookup(&probe);
    if (last && rule && now - *last < rule->repeats_ns) {
        lose(probe, LOST_REPEATED);
        return true;
    }
    repeats.update(&hash, &now);
    return false;
}

/* Whether there are too many of a probe from one cgroup; if so it is counted. The bucket holds when the next would be due at the rate in the long run. */
static __always_inline bool throttled(u32 probe, u64 cgroup_id)
{
    struct rule *rule = rules.lookup(&probe);
    if (!rule)
        return false;
    struct bucket key = {.cgroup_id = cgroup_id, .probe = probe};
    u64 now = bpf_ktime_get_ns(), next = now, *due = buckets.lookup(&key);
    if (due && *due > now)
        next = *due;
    if (next - now > rule->rate_burst_ns) {
        lose(probe, LOST_THROTTLED);
        return true;
    }
    next += rule->rate_every_ns;
    if (due)
        *due = next;
    else
        buckets.update(&key, &next);
    return false;
}
