// SPDX-License-Identifier: Apache-2.0
// Times are counted in buckets: below 64 ns one each; above, each power of two has 64. net/buckets.rs reads them.
enum { FINE = 64, BUCKETS = 2048 };

INLINE u32 bucket(u64 time)
{
	u32 power = 0;
	if (time < FINE)
		return time;
	for (int step = 32; step; step /= 2)
		if (time >> power >> step)
			power += step;
	u32 index = (power - 5) * FINE + (time >> (power - 6) & (FINE - 1));
	return index < BUCKETS ? index : BUCKETS - 1;
}
