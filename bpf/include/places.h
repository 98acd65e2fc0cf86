/*
 * Something kept for each thread or process: `struct @` by a number that tells its owner from most others (a thread id, a process id), and the owner itself
 * (an address in the kernel). The place is the number modulo the size, which an array finds in a few nanoseconds where a hash map takes 50. The first owner
 * there keeps it until it leaves; what belongs to others goes to a hash map. This text is a template: the loader puts the name in the place of each at sign, and in
 * capitals in that of each dollar sign (infrasight/kernel/source.py).
 */

struct @_place {
    struct @ value; /* first, so that its address is that of the place */
    u64 owner;      /* 0 when it is free */
    u64 claims;     /* owners that have the place or reach for it */
};
BPF_ARRAY(@_places, struct @_place, $_PLACES);
BPF_F_TABLE("hash", u64, struct @_place, @_displaced, $_DISPLACED, BPF_F_NO_PREALLOC);
BPF_ARRAY(@_blank, struct @_place, 1);

/* What is kept for an owner that has the place; 0 for others. */
static __always_inline struct @ *@_placed(u64 owner, u32 number)
{
    number &= $_PLACES - 1;
    struct @_place *place = @_places.lookup(&number);
    return place && place->owner == owner ? &place->value : 0;
}

/* What is kept for an owner; 0 when there is nothing. */
static __always_inline struct @ *@_find(u64 owner, u32 number)
{
    struct @ *placed = @_placed(owner, number);
    if (placed)
        return placed;
    struct @_place *displaced = @_displaced.lookup(&owner);
    return displaced ? &displaced->value : 0;
}

/*
 * The same, made if there is nothing, and then all zero; 0 when there is no room. Two who reach for a place at once both go without. Who was displaced
 * stays so, even when the place becomes free.
 */
static __always_inline struct @ *@_take(u64 owner, u32 number)
{
    u32 zero = 0, index = number & ($_PLACES - 1);
    struct @_place *place = @_places.lookup(&index);
    if (!place)
        return 0;
    if (place->owner == owner)
        return &place->value;
    struct @_place *displaced = @_displaced.lookup(&owner), *blank = @_blank.lookup(&zero);
    if (displaced || !blank)
        return displaced ? &displaced->value : 0;
    if (!place->owner) {
        __sync_fetch_and_add(&place->claims, 1);
        if (*(volatile u64 *)&place->claims == 1) {
            place->owner = owner;
            return &place->value;
        }
        __sync_fetch_and_add(&place->claims, -1);
    }
    @_displaced.insert(&owner, blank);
    displaced = @_displaced.lookup(&owner);
    return displaced ? &displaced->value : 0;
}

/* The owner gives up all it has. */
static __always_inline void @_leave(u64 owner, u32 number)
{
    u32 zero = 0, index = number & ($_PLACES - 1);
    struct @_place *place = @_places.lookup(&index), *blank = @_blank.lookup(&zero);
    if (place && blank && place->owner == owner) {
        bpf_probe_read_kernel(&place->value, sizeof(place->value), &blank->value);
        place->owner = 0;
        __sync_fetch_and_add(&place->claims, -1);
    }
    @_displaced.delete(&owner);
}
