/*
 * What a probe knows of an event, put down before the event becomes a record. A probe fills in the fields of its kind and says where its strings are; the
 * program for records of that shape, which the loader writes (infrasight/schema/c.py), does all the rest: room in the ring, head, strings, paths, repeats,
 * rates. So the long way up a directory tree is compiled and verified a few times and not for each system call. A draft lives on one processor from its
 * beginning to the end of the last program; nothing comes in between, since tracepoints do not give the processor away.
 */

/* Where the bytes of a slot are: a string of user memory, a path, or a place. */
union source {
    u64 string;
    struct path path;
    struct place place;
};

/* Of a draft's `paths`: its path is in `own`, and the second of `sources` is its place. */
#define OWN_PATH 8

struct draft {
    u64 enter_ns;
    s64 ret;
    u32 probe;
    u32 kinds;  /* of the probe's rule */
    u32 finish; /* the program that makes the record; those for longer ones come after it */
    u32 paths;  /* which of `sources` are paths, a bit each; OWN_PATH */
    u32 next;   /* the program to go on to when this one is told, for the next event of the same call; 0: there is none */
    u32 turn;   /* how many have been looked at */
    u32 own_length;
    u32 own_whole; /* whether the second of `sources` is the very file that `own` leads to */
    u64 cwd_key;
    u64 cwd_told; /* that of the last event on this processor */
    union source sources[SLOTS_MAX];
    u64 record[(sizeof(struct head) + PAYLOAD_MAX) / 8]; /* the head is filled in at the end */
    u8 own[OWN_MAX];                                      /* a string that the probe has read itself */
};
BPF_PERCPU_ARRAY(drafts, struct draft, 1);
BPF_PROG_ARRAY(programs, PROGRAMS);

static __always_inline struct draft *draft_of_cpu(void)
{
    u32 zero = 0;
    return drafts.lookup(&zero);
}

/* A new draft; 0 when the event is not to be told. `payload` is a constant, in bytes. */
static __always_inline struct draft *draft_begin(u32 probe, struct call *call, s64 ret, u32 payload)
{
    struct rule *rule = rule_of(probe);
    struct draft *draft = draft_of_cpu();
    if (!rule || !draft || is_family(FIELD(u32, FIELD(u64, current_task(), TASK_REAL_PARENT), TASK_TGID)))
        return 0;
    draft->kinds = rule->kinds;
    if (!passes_outcome(draft->kinds, ret))
        return 0;
    draft->enter_ns = call->enter_ns;
    draft->ret = ret;
    draft->probe = probe;
    draft->own_length = 0;
    draft->next = 0;
    __builtin_memset((u8 *)draft->record + sizeof(struct head), 0, payload);
    return draft;
}

/* The record is on its way, or there was no room for it. */
static __always_inline int draft_end(void *ctx, struct draft *draft)
{
    if (draft->next)
        programs.call(ctx, draft->next);
    return 0;
}

/* On to the program that makes the record, by way of the one that tells of working directories, where this one is not that of the last event here. */
static __always_inline void draft_finish(void *ctx, struct draft *draft)
{
    if (draft->cwd_key != draft->cwd_told)
        programs.call(ctx, PROGRAM_PROCESS_CWD);
    programs.call(ctx, draft->finish);
}

/*
 * Rules that need a closer look, or that few probes have, are programs of their own, one for all probes: first on who does it, then on paths (prefixes.h), then
 * on the rate. Only where repeats are not to count towards it is the rate looked at later, when the record is there.
 */
int pass_rate(struct bpf_raw_tracepoint_args *ctx)
{
    struct draft *draft = draft_of_cpu();
    if (draft && !throttled(draft->probe, cgroup_of(current_task())))
        draft_finish(ctx, draft);
    return draft ? draft_end(ctx, draft) : 0;
}

static __always_inline void draft_pass_rate(void *ctx, struct draft *draft)
{
    if ((draft->kinds & (RATE | REPEATS)) == RATE)
        programs.call(ctx, PROGRAM_PASS_RATE);
    draft_finish(ctx, draft);
}

int pass_who(struct bpf_raw_tracepoint_args *ctx)
{
    struct draft *draft = draft_of_cpu();
    if (!draft || !passes_who(draft->kinds, draft->probe, current_task()))
        return 0;
    if (draft->paths && draft->kinds & ON_PATH)
        programs.call(ctx, PROGRAM_PASS_PATHS);
    draft_pass_rate(ctx, draft);
    return 0;
}

/* The draft is whole: what comes after this is not run. `finish` is a constant; `paths` are the slots that are paths, a bit each. */
static __always_inline void draft_submit(void *ctx, struct draft *draft, u32 finish, u32 paths)
{
    draft->finish = finish;
    draft->paths = paths;
    draft->cwd_key = cwd_key(current_task());
    if (draft->kinds & ON_WHO)
        programs.call(ctx, PROGRAM_PASS_WHO);
    if (paths && draft->kinds & ON_PATH)
        programs.call(ctx, PROGRAM_PASS_PATHS);
    if ((draft->kinds & (RATE | REPEATS)) == RATE)
        programs.call(ctx, PROGRAM_PASS_RATE);
    if (draft->cwd_key != draft->cwd_told)
        programs.call(ctx, PROGRAM_PROCESS_CWD);
    programs.call(ctx, finish);
}

/* A string of user memory to a record; its length without NUL to `length`. False when there is more of it. */
static __always_inline bool put_string(u8 *to, u32 room, volatile u32 *length, u64 from)
{
    long size = user_string(to, room, from);
    *length = size > 0 ? size - 1 : 0;
    return size < (long)room;
}
