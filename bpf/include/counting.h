/*
 * For accounts of processes (accounts.h), by probe: since when it counts, by the clock since boot (0: it does not), and the number of the interval that is
 * being counted. Counting begins when all that the probe hangs on has been attached, so that nothing is begun of which the end would not be seen.
 */
BPF_ARRAY(counting_since, u64, PROBES);
BPF_ARRAY(intervals, u32, PROBES);

/* An account whose process has ended: what had this address may be another's by the time that it is read. */
struct ended {
    u64 owner;
    u64 enter_ns;
};
/* How many of them were put aside until now, by probe, since the ring had no room. */
BPF_ARRAY(put_aside, u64, PROBES);
