// SPDX-License-Identifier: Apache-2.0
// The far ends of streams: `streams_receive` counts what arrives, stream by stream; `streams_relay` is a media relay, and
// `streams_pass` what its other end needs.
//
// A packet of a stream is Ethernet, IPv4 without options, UDP, RTP (RFC 3550, section 5.1) and a stamp; its SSRC is the
// number of the stream. perf/src/traffic/frame.rs builds it. Everything else is passed to the pod's kernel and counted.
//
// No header but our own, so that building it needs clang and nothing else.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

// include/uapi/linux/bpf.h
struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};
enum { XDP_DROP = 1, XDP_PASS = 2, XDP_TX = 3 };
enum { MAP_ARRAY = 2 };
static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static u64 (*const monotonic_ns)(void) = (void *)5;

#define SEC(name) __attribute__((section(name), used))
#define UINT(name, value) int (*name)[value]
#define TYPE(name, value) value *name
#define INLINE static inline __attribute__((always_inline))
#define ADD(counter, value) __sync_fetch_and_add(counter, value)

#include "buckets.h"

// The same in perf/src/traffic/receiver.rs.
enum { STREAMS_MAX = 65536, MAGIC = 0x76537750 };
enum { OTHER, UNKNOWN, RELAYED, COUNTS };

struct stream {
	u64 received;
	u64 next;	// the highest sequence number so far, plus one
	u64 late;	// arrived after one that was sent later
	u64 jitter_16;	// interarrival jitter in nanoseconds, times 16 (RFC 3550, A.8)
	u64 delay;	// of the last packet, in nanoseconds, as all delays: from when it should have left
	u64 delay_sum;
	u64 delay_max;
	u64 jitter_16_max;
};

struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, struct stream); UINT(max_entries, STREAMS_MAX); } streams SEC(".maps");
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, u64); UINT(max_entries, BUCKETS); } delays SEC(".maps");
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, u64); UINT(max_entries, COUNTS); } counts SEC(".maps");
// The two ends a relay stands between, as on the wire.
struct ends { u32 one, other; };
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, struct ends); UINT(max_entries, 1); } relay SEC(".maps");

struct packet {
	u8 destination[6], source[6];
	u16 type;
	u8 version_length, tos;
	u16 total, id, fragment;
	u8 ttl, protocol;
	u16 checksum;
	u32 ip_source, ip_destination;
	u16 port_source, port_destination, udp_length, udp_checksum;
	u8 rtp_flags, rtp_type;
	u16 rtp_sequence;
	u32 rtp_timestamp, rtp_ssrc;
	u32 magic, sequence; // of the machine's own byte order, as what follows
	u64 due_ns;	     // CLOCK_MONOTONIC
} __attribute__((packed));

INLINE void count(u32 which)
{
	u64 *counter = map_lookup(&counts, &which);
	if (counter)
		ADD(counter, 1);
}

// The packet, when it is one of ours.
INLINE struct packet *stream_packet(struct xdp_md *context)
{
	struct packet *packet = (void *)(long)context->data;
	if ((void *)(packet + 1) > (void *)(long)context->data_end)
		return 0;
	if (packet->type != __builtin_bswap16(0x0800) || packet->version_length != 0x45 || packet->protocol != 17 ||
	    packet->magic != MAGIC)
		return 0;
	return packet;
}

SEC("xdp") int streams_receive(struct xdp_md *context)
{
	struct packet *packet = stream_packet(context);
	if (!packet) {
		count(OTHER);
		return XDP_PASS;
	}
	u32 number = __builtin_bswap32(packet->rtp_ssrc);
	struct stream *stream = map_lookup(&streams, &number);
	if (!stream) {
		count(UNKNOWN);
		return XDP_DROP;
	}
	u64 now = monotonic_ns();
	// A packet never arrives before it was due: the sender waits for that, and both read the same clock.
	u64 delay = now > packet->due_ns ? now - packet->due_ns : 0;
	if (stream->received) {
		s64 change = (s64)(delay - stream->delay);
		if (change < 0)
			change = -change;
		stream->jitter_16 += change - ((stream->jitter_16 + 8) >> 4);
		if (stream->jitter_16 > stream->jitter_16_max)
			stream->jitter_16_max = stream->jitter_16;
	}
	stream->delay = delay;
	stream->delay_sum += delay;
	if (delay > stream->delay_max)
		stream->delay_max = delay;
	u64 next = (u64)packet->sequence + 1;
	if (next > stream->next)
		stream->next = next;
	else
		stream->late++;
	stream->received++;
	u32 index = bucket(delay);
	u64 *counter = map_lookup(&delays, &index);
	if (counter)
		ADD(counter, 1);
	return XDP_DROP;
}

// Sends what came from one end on to the other, with the same ports. Both legs are UDP without a checksum, and the IPv4
// checksum is carried over (RFC 1624): it holds the two addresses before, and the two after.
SEC("xdp") int streams_relay(struct xdp_md *context)
{
	struct packet *packet = stream_packet(context);
	u32 zero = 0;
	struct ends *ends = map_lookup(&relay, &zero);
	if (!packet || !ends) {
		count(OTHER);
		return XDP_PASS;
	}
	u32 from = packet->ip_source, own = packet->ip_destination;
	if (from != ends->one && from != ends->other) {
		count(UNKNOWN);
		return XDP_DROP;
	}
	u32 to = from == ends->one ? ends->other : ends->one;
	u64 sum = (u16)~packet->checksum;
	sum += (u16)~(from & 0xffff) + (u16)~(from >> 16) + (to & 0xffff) + (to >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	packet->checksum = (u16)~sum;
	packet->ip_source = own;
	packet->ip_destination = to;
	u8 gateway[6];
	__builtin_memcpy(gateway, packet->source, 6);
	__builtin_memcpy(packet->source, packet->destination, 6);
	__builtin_memcpy(packet->destination, gateway, 6);
	count(RELAYED);
	return XDP_TX;
}

// Does nothing. A veth takes what a program at its other end sends back only while it has a program itself
// (veth_xdp_flush, drivers/net/veth.c).
SEC("xdp") int streams_pass(struct xdp_md *context)
{
	(void)context;
	return XDP_PASS;
}

char streams_license[] SEC("license") = "Apache-2.0";
