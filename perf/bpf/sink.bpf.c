// SPDX-License-Identifier: Apache-2.0
// Sink: counts the frames of our generators and drops them; everything else goes to the kernel.
//
// It can look at their order, flow by flow, and at their delays: from when a frame should have left to when it got here.
#include "perf.h"
#include "buckets.h"

struct counts { u64 packets, bytes, others; };
// Of one flow. A frame that comes early leaves a gap; one that comes late was counted in a gap, or came twice.
struct flow { u64 received, next, gaps, late, transit, jitter16, delay_sum, delay_max; };

struct { UINT(type, MAP_PERCPU_ARRAY); TYPE(key, u32); TYPE(value, struct counts); UINT(max_entries, 1); } counts SEC(".maps");
struct { UINT(type, MAP_PERCPU_ARRAY); TYPE(key, u32); TYPE(value, u64); UINT(max_entries, BUCKETS); } delays SEC(".maps");
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, struct flow); UINT(max_entries, 1); } flows SEC(".maps");

// Where the payload begins; flows whose order is checked (0: it is not); whether delays are taken.
const volatile u32 AT, FLOWS, TIMED;

INLINE void take_delay(struct flow *flow, u64 delay)
{
	u32 index = bucket(delay);
	u64 *count = map_lookup(&delays, &index);
	if (count)
		++*count;
	if (!flow)
		return;
	// RFC 3550, appendix A.8.
	u64 change = delay > flow->transit ? delay - flow->transit : flow->transit - delay;
	if (flow->received > 1)
		flow->jitter16 += change - ((flow->jitter16 + 8) >> 4);
	flow->transit = delay;
	flow->delay_sum += delay;
	if (delay > flow->delay_max)
		flow->delay_max = delay;
}

INLINE void take_order(struct flow *flow, u64 order)
{
	flow->received++;
	if (order < flow->next) {
		flow->late++;
	} else {
		flow->gaps += order - flow->next;
		flow->next = order + 1;
	}
}

SEC("xdp") int sink(struct xdp_md *context)
{
	u32 zero = 0;
	struct counts *count = map_lookup(&counts, &zero);
	const u8 *at = (const u8 *)(u64)context->data, *end = (const u8 *)(u64)context->data_end;
	if (!count)
		return XDP_ABORTED;
	u64 length = end - at;
	const struct payload *payload = (const void *)(at + AT);
	if ((const u8 *)(payload + 1) > end || *(const u16 *)((const u8 *)payload + 16) != MARK) {
		count->others++;
		return XDP_PASS;
	}
	count->packets++;
	count->bytes += length;
	if (!FLOWS && !TIMED)
		return XDP_DROP;
	u64 number = *(const u64 *)payload, due = *(const u64 *)((const u8 *)payload + 8);
	struct flow *flow = 0;
	if (FLOWS) {
		u32 index = number % FLOWS;
		flow = map_lookup(&flows, &index);
		if (flow)
			take_order(flow, number / FLOWS);
	}
	if (TIMED) {
		u64 now = now_ns();
		take_delay(flow, now > due ? now - due : 0);
	}
	return XDP_DROP;
}

SEC("license") char license_text[] = "Apache-2.0";
