//! Packets from the sender's port through its node's walk, over the tunnel and through the receiver's node's, to the
//! receiver's port.

use std::collections::{BTreeMap, HashMap};

use vswitch_datapath::testing::frames::Ends;
use vswitch_datapath::testing::world::KERNEL_MAC;
use vswitch_datapath::{Buffer, Now, Offload, Packet, PortIndex, VecBuffer};

use super::Switch;
use super::frames::{self, Known};
use super::node::{HOST, UPLINK};
use crate::report::{Report, Way};
use crate::scene::{End, Probe, Scene, Who};

/// Packets on their way into nodes.
type Entering = BTreeMap<String, Vec<Packet<VecBuffer>>>;

impl Switch {
    /// Sends the first packet of each probe. What counts is whether it comes out at the receiver's port; and if it does,
    /// whether the answer comes back, whatever policy says of the other direction.
    pub(crate) fn send(&mut self, way: Way, scene: &Scene, report: &mut Report) {
        let mut entering = Entering::new();
        let mut wanted: HashMap<Known, Vec<usize>> = HashMap::new();
        for (index, probe) in scene.probes.iter().enumerate() {
            let (from, to) = (&scene.ends[probe.from], &scene.ends[probe.to]);
            let (node, port, ends) = self.way_in(from, to);
            let frame = frames::first(ends, probe);
            let probes = wanted.entry(frames::known(&frame)).or_default();
            probes.push(index);
            // Some are asked twice in a state.
            if probes.len() == 1 {
                entering.entry(node).or_default().push(packet(port, &frame));
            }
        }
        let arrived = self.carry(entering);
        let passed = self.judge_packets(way, scene, &wanted, &arrived, report);
        self.answer(scene, &passed, report);
    }

    fn judge_packets(
        &self,
        way: Way,
        scene: &Scene,
        wanted: &HashMap<Known, Vec<usize>>,
        arrived: &[Arrived],
        report: &mut Report,
    ) -> Vec<usize> {
        let mut passed = vec![false; scene.probes.len()];
        for Arrived { node, port, known } in arrived {
            let Some(probes) = wanted.get(known) else {
                report.tell(way, &format!("{}: nobody sent what came out at {node}: {known:?}", scene.name));
                continue;
            };
            for index in probes {
                let probe = &scene.probes[*index];
                if (node, *port) == self.way_out(&scene.ends[probe.from], &scene.ends[probe.to]) {
                    passed[*index] = true;
                } else {
                    report.tell(way, &format!("{}: came out at {node} by {port:?}", scene.describe(probe)));
                }
            }
        }
        for (probe, passed) in scene.probes.iter().zip(&passed) {
            report.judge(way, scene, probe, probe.expected.allowed, *passed, "");
        }
        (0..passed.len()).filter(|index| passed[*index]).collect()
    }

    /// Answers the packets that came through.
    fn answer(&mut self, scene: &Scene, passed: &[usize], report: &mut Report) {
        let mut entering = Entering::new();
        let mut wanted: HashMap<Known, &Probe> = HashMap::new();
        for probe in passed.iter().map(|index| &scene.probes[*index]) {
            let (from, to) = (&scene.ends[probe.from], &scene.ends[probe.to]);
            // What went to another node's kernel comes back by ways that are not ours.
            if to.who == Who::Node && to.node != from.node {
                continue;
            }
            let (node, port, ends) = match to.who {
                Who::Pod { .. } => self.way_in(to, from),
                Who::Node | Who::World => (from.node.clone(), HOST, ends_of_kernel(to, from)),
            };
            let Some(frame) = frames::answer(ends, probe) else { continue };
            if wanted.insert(frames::known(&frame), probe).is_none() {
                entering.entry(node).or_default().push(packet(port, &frame));
            }
        }
        for Arrived { node, port, known } in self.carry(entering) {
            let Some(probe) = wanted.remove(&known) else {
                let what = format!("{}: nobody sent what came out at {node}: {known:?}", scene.name);
                report.tell(Way::Replies, &what);
                continue;
            };
            let (from, to) = (&scene.ends[probe.from], &scene.ends[probe.to]);
            let way_out = match from.who {
                Who::Pod { .. } => self.way_out(to, from),
                Who::Node | Who::World => (&to.node, HOST),
            };
            report.judge(Way::Replies, scene, probe, true, (&node, port) == way_out, "at its port: ");
        }
        for probe in wanted.into_values() {
            report.judge(Way::Replies, scene, probe, true, false, "");
        }
    }

    /// Takes packets through the nodes until all have left or ended.
    fn carry(&mut self, mut entering: Entering) -> Vec<Arrived> {
        let now = Now(1_000_000_000 * (1 + self.revision));
        let mut arrived = Vec::new();
        while let Some((name, mut packets)) = entering.pop_first() {
            let node = self.nodes.get_mut(&name).unwrap();
            node.process(&mut packets, now);
            for packet in std::mem::take(&mut node.out.tx) {
                let bytes = packet.buffer.bytes();
                if packet.port != UPLINK {
                    let known = frames::known(bytes);
                    arrived.push(Arrived { node: name.clone(), port: packet.port, known });
                    continue;
                }
                let remote = frames::outer_destination(bytes).expect("only tunnels lead over the uplink");
                let other = self.inputs.nodes.keys().enumerate();
                let mut other = other.filter(|(number, _)| crate::scene::node_address(*number) == remote);
                let (_, other) = other.next().expect("tunnels lead to nodes");
                entering.entry(other.clone()).or_default().push(self::packet(UPLINK, bytes));
            }
        }
        arrived
    }

    /// The node and port by which what `from` sends comes in, and the ends of such a frame.
    fn way_in(&self, from: &End, to: &End) -> (String, PortIndex, Ends) {
        match from.who {
            Who::Pod { .. } => {
                let (port, mac) = self.nodes[&from.node].pod(from.address).expect("the pod has a port");
                (from.node.clone(), port, Ends::of_pod(mac, from.address, to.address))
            }
            Who::Node | Who::World => (to.node.clone(), HOST, ends_of_kernel(from, to)),
        }
    }

    /// The node and port by which what `from` sends has to come out to be at `to`: for all but pods, the sender's
    /// node's kernel, which knows the way on.
    fn way_out<'a>(&self, from: &'a End, to: &'a End) -> (&'a String, PortIndex) {
        match to.who {
            Who::Pod { .. } => {
                (&to.node, self.nodes[&to.node].pod(to.address).expect("the pod has a port").0)
            }
            Who::Node | Who::World => (&from.node, HOST),
        }
    }
}

/// A packet that left by a port other than an uplink.
struct Arrived {
    node: String,
    port: PortIndex,
    known: Known,
}

fn ends_of_kernel(from: &End, to: &End) -> Ends {
    Ends::of_pod(KERNEL_MAC, from.address, to.address)
}

fn packet(port: PortIndex, frame: &[u8]) -> Packet<VecBuffer> {
    Packet { buffer: VecBuffer::of(frame), port, offload: Offload::default() }
}
