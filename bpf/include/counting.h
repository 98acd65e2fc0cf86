/*
 * For accounts of processes (accounts.h), by probe: since when it counts, by the clock since boot (0: it does not), and the number of the interval that is
 * being counted. Counting begins when all that the probe hangs on has been attached, so that nothing is begun of which the end would not be seen.
 */
BPF_ARRAY(counting_since, u64, PROBES);
BPF_ARRAY(intervals, u32, PROBES);
