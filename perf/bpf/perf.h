// SPDX-License-Identifier: Apache-2.0
// What generator and sink share. No header but our own declarations, so that building needs clang and nothing else.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// include/uapi/linux/bpf.h
struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};
enum { XDP_ABORTED = 0, XDP_DROP = 1, XDP_PASS = 2, XDP_REDIRECT = 4 };
enum { MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6 };
static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static u64 (*const now_ns)(void) = (void *)5; // CLOCK_MONOTONIC
static long (*const redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const loop)(u32 count, void *step, void *context, u64 flags) = (void *)181;

#define SEC(name) __attribute__((section(name), used))
#define UINT(name, value) int (*name)[value]
#define TYPE(name, value) value *name
#define INLINE static inline __attribute__((always_inline))
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines"
#endif

// The first bytes of each frame's UDP payload, in the machine's byte order; the rest of it is zero.
struct payload {
	u64 number; // of the frame, from 0
	u64 due;    // when it should have left, ns of CLOCK_MONOTONIC; 0: nobody asked
	u16 mark;   // what tells our frames from others
} __attribute__((packed));
enum { MARK = 0x5356 };
