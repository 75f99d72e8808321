// SPDX-License-Identifier: Apache-2.0
// Steering: decides for each frame a device receives whether it goes to the engine's AF_XDP socket or up the kernel's stack.
//
// One program for all devices of a network namespace; what a device is for is in the map `devices`.
//
//   pod     everything goes to its socket. No socket: dropped, since the kernel would forward it with no policy.
//   uplink  to its socket goes what is ours: VXLAN of our networks to our address and port; IP-in-IP (protocols 4 and 41) from
//           a node we know to our address, for a pod of this node or an address among the pods; and what is addressed to a
//           pod of this node as it is. Everything else, and everything when there is no socket, goes to the kernel: so do
//           IP-in-IP and 6in4 tunnels of the host's own, to the nodes, too. IP-in-IP bears nothing but addresses by which it
//           could be told whose it is.
//
// Not looked into, hence the kernel's: VLAN tags, IPv6 extension headers before the outer UDP header, and fragments of
// tunnel packets: beyond the first, and of IP-in-IP over IPv6 all (the engine counts and drops those it gets: outer fragments
// are refused). Before an IPv6 header's IP-in-IP one header of destination options may stand: Linux's ip6tnl puts its
// encapsulation limit there (RFC 2473, section 4.1.1).
//
// No header but our own declarations, so that building it needs clang and nothing else.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// include/uapi/linux/bpf.h
struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};
enum { XDP_DROP = 1, XDP_PASS = 2 };
enum { MAP_HASH = 1, MAP_LPM_TRIE = 11, MAP_XSKMAP = 17, NO_PREALLOC = 1 };
static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static long (*const redirect_map)(const void *map, u64 key, u64 flags) = (void *)51;

#define SEC(name) __attribute__((section(name), used))
#define UINT(name, value) int (*name)[value]
#define TYPE(name, value) value *name
#define BE16(value) ((u16)__builtin_bswap16(value))
#define INLINE static inline __attribute__((always_inline))
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines"
#endif

enum role { ROLE_POD = 1, ROLE_UPLINK = 2 };

struct device {
	u32 role;
	u32 first_slot; // of `sockets`; the queue's number is added
	u32 queues;
};
struct prefix_v4 { u32 length; u8 address[4]; };
struct prefix_v6 { u32 length; u8 address[16]; };
// Port as on the wire; VNI as the second word of the VXLAN header on the wire, its last byte zero (RFC 7348, section 5).
struct tunnel_v4 { u8 address[4]; u16 port; u16 zero; u8 vni[4]; };
struct tunnel_v6 { u8 address[16]; u16 port; u16 zero; u8 vni[4]; };
// As they follow each other in an IP header.
struct peer_v4 { u8 source[4], destination[4]; };
struct peer_v6 { u8 source[16], destination[16]; };

struct { UINT(type, MAP_HASH); TYPE(key, u32); TYPE(value, struct device); UINT(max_entries, 4096); } devices SEC(".maps");
struct { UINT(type, MAP_XSKMAP); TYPE(key, u32); TYPE(value, u32); UINT(max_entries, 4096); } sockets SEC(".maps");
struct { UINT(type, MAP_LPM_TRIE); TYPE(key, struct prefix_v4); TYPE(value, u32); UINT(max_entries, 65536);
	 UINT(map_flags, NO_PREALLOC); } local_v4 SEC(".maps");
struct { UINT(type, MAP_LPM_TRIE); TYPE(key, struct prefix_v6); TYPE(value, u32); UINT(max_entries, 65536);
	 UINT(map_flags, NO_PREALLOC); } local_v6 SEC(".maps");
// Where else what comes in IP-in-IP may go to be ours.
struct { UINT(type, MAP_LPM_TRIE); TYPE(key, struct prefix_v4); TYPE(value, u32); UINT(max_entries, 65536);
	 UINT(map_flags, NO_PREALLOC); } inner_v4 SEC(".maps");
struct { UINT(type, MAP_LPM_TRIE); TYPE(key, struct prefix_v6); TYPE(value, u32); UINT(max_entries, 65536);
	 UINT(map_flags, NO_PREALLOC); } inner_v6 SEC(".maps");
struct { UINT(type, MAP_HASH); TYPE(key, struct tunnel_v4); TYPE(value, u32); UINT(max_entries, 1024); } tunnels_v4 SEC(".maps");
struct { UINT(type, MAP_HASH); TYPE(key, struct tunnel_v6); TYPE(value, u32); UINT(max_entries, 1024); } tunnels_v6 SEC(".maps");
struct { UINT(type, MAP_HASH); TYPE(key, struct peer_v4); TYPE(value, u32); UINT(max_entries, 65536);
	 UINT(map_flags, NO_PREALLOC); } peers_v4 SEC(".maps");
struct { UINT(type, MAP_HASH); TYPE(key, struct peer_v6); TYPE(value, u32); UINT(max_entries, 65536);
	 UINT(map_flags, NO_PREALLOC); } peers_v6 SEC(".maps");

struct ethernet { u8 destination[6], source[6]; u16 type; };
struct ipv4 { u8 version_length, tos; u16 total, id, fragment; u8 ttl, protocol; u16 checksum; u8 source[4], destination[4]; };
struct ipv6 { u32 version_class_label; u16 payload; u8 next, hops, source[16], destination[16]; };
struct vxlan { u16 udp_source, udp_destination, udp_length, udp_checksum; u8 flags[4], vni[4]; };

struct option { u8 next, length; };

enum { IPV4 = 4, UDP = 17, IPV6 = 41, DESTINATION_OPTIONS = 60, FRAGMENT_OFFSET = 0x1fff, MORE_FRAGMENTS = 0x2000 };

// Whether the packet within IP-in-IP of protocol `kind` is for a pod, or an address among the pods; `cut` when its header is not
// all there.
INLINE int ours_within(u8 kind, const void *at, const void *end, int cut)
{
	if (kind == IPV4) {
		const struct ipv4 *ip = at;
		if ((const void *)(ip + 1) > end)
			return cut;
		struct prefix_v4 host = { .length = 32 };
		__builtin_memcpy(host.address, ip->destination, 4);
		return map_lookup(&local_v4, &host) || map_lookup(&inner_v4, &host);
	}
	const struct ipv6 *ip = at;
	if ((const void *)(ip + 1) > end)
		return cut;
	struct prefix_v6 host = { .length = 128 };
	__builtin_memcpy(host.address, ip->destination, 16);
	return map_lookup(&local_v6, &host) || map_lookup(&inner_v6, &host);
}

// A first fragment too small for the inner header is what no path makes of a packet. The kernel would put the whole together, and
// a tunnel device of it pass on what is for a pod: the engine gets this part, and the rest waits in vain.
INLINE int ours_v4(const void *at, const void *end)
{
	const struct ipv4 *ip = at;
	if ((const void *)(ip + 1) > end)
		return 0;
	struct prefix_v4 host = { .length = 32 };
	__builtin_memcpy(host.address, ip->destination, 4);
	if (map_lookup(&local_v4, &host))
		return 1;
	u32 length = (ip->version_length & 0xf) * 4;
	if ((ip->fragment & BE16(FRAGMENT_OFFSET)) || length < sizeof(*ip))
		return 0;
	if (ip->protocol == IPV4 || ip->protocol == IPV6) {
		struct peer_v4 peer;
		__builtin_memcpy(peer.source, ip->source, 4);
		__builtin_memcpy(peer.destination, ip->destination, 4);
		return map_lookup(&peers_v4, &peer) && ours_within(ip->protocol, at + length, end, (ip->fragment & BE16(MORE_FRAGMENTS)) != 0);
	}
	if (ip->protocol != UDP)
		return 0;
	const struct vxlan *vxlan = at + length;
	if ((const void *)(vxlan + 1) > end)
		return 0;
	struct tunnel_v4 key = { .port = vxlan->udp_destination };
	__builtin_memcpy(key.address, ip->destination, 4);
	__builtin_memcpy(key.vni, vxlan->vni, 3);
	return map_lookup(&tunnels_v4, &key) != 0;
}

INLINE int ours_v6(const void *at, const void *end)
{
	const struct ipv6 *ip = at;
	if ((const void *)(ip + 1) > end)
		return 0;
	struct prefix_v6 host = { .length = 128 };
	__builtin_memcpy(host.address, ip->destination, 16);
	if (map_lookup(&local_v6, &host))
		return 1;
	const struct option *option = at + sizeof(*ip);
	u8 next = ip->next;
	u32 length = sizeof(*ip);
	if (next == DESTINATION_OPTIONS && (const void *)(option + 1) <= end && option->next != UDP) {
		next = option->next;
		length += 8 + option->length * 8;
	}
	if (next == IPV4 || next == IPV6) {
		struct peer_v6 peer;
		__builtin_memcpy(peer.source, ip->source, 16);
		__builtin_memcpy(peer.destination, ip->destination, 16);
		return map_lookup(&peers_v6, &peer) && ours_within(next, at + length, end, 0);
	}
	const struct vxlan *vxlan = at + sizeof(*ip);
	if (next != UDP || (const void *)(vxlan + 1) > end)
		return 0;
	struct tunnel_v6 key = { .port = vxlan->udp_destination };
	__builtin_memcpy(key.address, ip->destination, 16);
	__builtin_memcpy(key.vni, vxlan->vni, 3);
	return map_lookup(&tunnels_v6, &key) != 0;
}

SEC("xdp") int steer(struct xdp_md *context)
{
	u32 ifindex = context->ingress_ifindex;
	const struct device *device = map_lookup(&devices, &ifindex);
	if (!device)
		return XDP_PASS;
	u32 queue = context->rx_queue_index;
	u64 slot = (u64)device->first_slot + queue;
	if (device->role == ROLE_POD)
		// The flags are what happens when the slot is empty.
		return queue < device->queues ? redirect_map(&sockets, slot, XDP_DROP) : XDP_DROP;

	const void *at = (const void *)(u64)context->data, *end = (const void *)(u64)context->data_end;
	const struct ethernet *ethernet = at;
	if (device->role != ROLE_UPLINK || queue >= device->queues || (const void *)(ethernet + 1) > end)
		return XDP_PASS;
	at += sizeof(*ethernet);
	int ours = ethernet->type == BE16(0x0800)   ? ours_v4(at, end)
		   : ethernet->type == BE16(0x86dd) ? ours_v6(at, end)
						    : 0;
	return ours ? redirect_map(&sockets, slot, XDP_PASS) : XDP_PASS;
}

SEC("license") char license_text[] = "Apache-2.0";
