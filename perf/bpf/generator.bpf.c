// SPDX-License-Identifier: Apache-2.0
// Generator: run by BPF_PROG_TEST_RUN with live frames, makes each frame the next of a pattern and sends it out of a device.
//
// Pages come back as others left them, so each frame's headers are written anew. Frame n has template n % templates, and of
// that template's flows the one numbered n / templates % flows: it is added to the ports.
#include "perf.h"
#include "buckets.h"

enum { HEADERS_V4 = 42, HEADERS_V6 = 62, SOURCE_PORTS = 1 << 15, LOOK = 64, WRITES = 16 };

struct template {
	u64 headers[8]; // Ethernet, IP, UDP
	u32 sum;        // IPv6: the checksum's sum over everything but ports, number and due time
	u16 source, destination; // first ports, the machine's byte order
};
struct state {
	u64 sent, start, template, flow;
	u64 behind, behind_max; // how late the last burst left, and the latest, ns
	u64 looked, looked_at;  // frames that had been sent when the clock was last looked at, and the time then
};
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, struct template); UINT(max_entries, 1); } templates SEC(".maps");
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, struct state); UINT(max_entries, 1); } states SEC(".maps");
// How late bursts left.
struct { UINT(type, MAP_PERCPU_ARRAY); TYPE(key, u32); TYPE(value, u64); UINT(max_entries, BUCKETS); } late SEC(".maps");
// What it writes to while it waits, where it is to keep the memory busy: a line of the cache each.
struct line { u64 words[8]; };
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, struct line); UINT(max_entries, 1); } memory SEC(".maps");
// Not zero: send no more.
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, u64); UINT(max_entries, 1); } stops SEC(".maps");

const volatile u32 V6, TEMPLATES = 1, FLOWS = 1, IFINDEX, BURST = 1;
// Lines of `memory`, a power of two. 0: it only waits.
const volatile u32 LINES;
// Picoseconds between two frames. 0: as fast as it goes.
const volatile u64 INTERVAL_PS;

struct wait { u64 until; const volatile u64 *stop; u32 line; };

static long wait_step(u64 step, struct wait *wait)
{
	(void)step;
	// Few enough that the wait ends within a microsecond.
	for (int write = 0; LINES && write < WRITES; write++) {
		u32 index = wait->line++ & (LINES - 1);
		struct line *line = map_lookup(&memory, &index);
		if (line)
			line->words[0]++;
	}
	return now_ns() >= wait->until || *wait->stop;
}

INLINE u32 words(u64 value)
{
	return (value & 0xffff) + (value >> 16 & 0xffff) + (value >> 32 & 0xffff) + (value >> 48);
}

INLINE void look(struct state *state, u64 now)
{
	state->looked = state->sent;
	state->looked_at = now;
}

// Frames of a burst leave together, when the first of them is due.
INLINE u64 wait_for_turn(struct state *state, const volatile u64 *stop)
{
	if (!state->sent)
		state->start = now_ns();
	if (!INTERVAL_PS) {
		// Seldom: the clock is dear beside what else a flood does for a frame.
		if (state->sent % LOOK == 0)
			look(state, now_ns());
		return 0;
	}
	u64 in_burst = state->sent % BURST;
	struct wait wait = { state->start + (state->sent - in_burst) * INTERVAL_PS / 1000, stop, (u32)state->sent * 61 };
	if (!in_burst) {
		loop(1 << 23, wait_step, &wait, 0);
		u64 now = now_ns();
		state->behind = now > wait.until ? now - wait.until : 0;
		if (state->behind > state->behind_max)
			state->behind_max = state->behind;
		u32 index = bucket(state->behind);
		u64 *count = map_lookup(&late, &index);
		if (count)
			++*count;
		look(state, now);
	}
	return wait.until;
}

SEC("xdp") int generate(struct xdp_md *context)
{
	u32 zero = 0;
	struct state *state = map_lookup(&states, &zero);
	const volatile u64 *stop = map_lookup(&stops, &zero);
	if (!state || !stop)
		return XDP_ABORTED;
	u64 due = wait_for_turn(state, stop);
	if (*stop)
		return XDP_DROP;
	u32 index = state->template, flow = state->flow;
	const struct template *template = map_lookup(&templates, &index);
	u8 *at = (u8 *)(u64)context->data, *end = (u8 *)(u64)context->data_end;
	if (!template || at + HEADERS_V6 + sizeof(struct payload) > end) {
		if (!template || V6 || at + HEADERS_V4 + sizeof(struct payload) > end)
			return XDP_ABORTED;
	}
	u16 source = __builtin_bswap16(template->source + (flow & (SOURCE_PORTS - 1)));
	u16 destination = __builtin_bswap16(template->destination + flow / SOURCE_PORTS);
	u64 *to = (u64 *)at;
	for (int word = 0; word < 5; word++)
		to[word] = template->headers[word];
	if (V6) {
		if (at + HEADERS_V6 + sizeof(struct payload) > end)
			return XDP_ABORTED;
		to[5] = template->headers[5];
		to[6] = template->headers[6];
		*(u32 *)(at + 56) = (u32)template->headers[7];
		u32 sum = template->sum + source + destination + words(state->sent) + words(due);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		u16 checksum = ~sum;
		*(u16 *)(at + 54) = source;
		*(u16 *)(at + 56) = destination;
		*(u16 *)(at + 58) = (u16)(template->headers[7] >> 16);
		*(u16 *)(at + 60) = checksum ? checksum : 0xffff;
		at += HEADERS_V6;
	} else {
		*(u16 *)(at + 34) = source;
		*(u16 *)(at + 36) = destination;
		*(u16 *)(at + 40) = (u16)template->headers[5];
		at += HEADERS_V4;
	}
	*(u64 *)at = state->sent;
	*(u64 *)(at + 8) = due;
	*(u16 *)(at + 16) = MARK;

	state->sent++;
	if (++state->template >= TEMPLATES) {
		state->template = 0;
		if (++state->flow >= FLOWS)
			state->flow = 0;
	}
	return redirect(IFINDEX, 0);
}

SEC("license") char license_text[] = "Apache-2.0";
