//! What a worker does that shares the ports with others: sorts what it received by whose it is, takes what they handed over.
//! Never called by a worker that is alone. [`super::peers`] says how packets get across.

use vswitch_datapath::tables::Role;
use vswitch_datapath::{Buffer, Now, Packet, Probe, anchor};
use vswitch_model::DropReason;

use super::Worker;
use super::lane::{Handed, Parcel};
use super::turn::pieces;
use crate::io::{Frame, Refused};

/// Parcels taken in one turn at most: as many batches as ports are visited for.
const PARCELS: usize = 4;

impl Worker {
    /// Takes what has just arrived into the batch, or hands it to the worker that follows its flow.
    pub(super) fn sort_arrived(&mut self) {
        let Some(peers) = &mut self.peers else { return };
        for mut packet in self.arrived.drain(..) {
            let of = anchor(&self.tables, packet.port, packet.buffer.bytes());
            // What an uplink brings for one pod takes nothing from what it brings for others.
            let origin = match self.tables.port(packet.port).role {
                Role::Uplink => of.unwrap_or(packet.port),
                Role::Pod | Role::Host | Role::None => packet.port,
            };
            packet.buffer.set_origin(origin);
            let owner = of.map_or(peers.number(), |port| peers.owner(port));
            if owner == peers.number() {
                self.batch.push(packet);
            } else if let Err(handed) = peers.hand(owner, Handed::Walk(packet)) {
                // As if it had been walked: it came, and it ended.
                let packet = handed.into_packet();
                self.counters.received(packet.port, packet.buffer.bytes().len());
                self.counters.dropped(packet.port, DropReason::HandoverFull);
                self.pool.put(packet.buffer);
            }
        }
    }

    /// Walks and sends what other workers handed over. How many packets that were.
    pub(super) fn take_handed<P: Probe>(&mut self, now: Now, probe: &mut P) -> usize {
        let (mut parcels, mut packets) = (0, 0);
        while parcels < PARCELS {
            let Some((from, mut parcel)) = self.peers.as_mut().and_then(|peers| peers.take()) else { break };
            parcels += 1;
            packets += parcel.len();
            if self.batch.len() + parcel.len() > self.batch.capacity() {
                self.walk_batch(now, probe);
            }
            self.unpack(&mut parcel, now, probe);
            if let Some(peers) = &self.peers {
                peers.give_back(from, parcel);
            }
        }
        // A visit may bring as many pieces as there are spare frames for.
        if self.pieces > 0 {
            self.walk_batch(now, probe);
        }
        let left = self.peers.as_ref().map_or(0, |peers| peers.waiting());
        self.handed.visited(left, now);
        packets
    }

    fn unpack<P: Probe>(&mut self, parcel: &mut Parcel, now: Now, probe: &mut P) {
        for handed in parcel.drain(..) {
            match handed {
                Handed::Walk(packet) => {
                    let pieces = pieces(&packet);
                    if pieces > 0 && self.pieces > 0 && self.pieces + pieces > self.out.spare.len() {
                        self.walk_batch(now, probe);
                    }
                    self.pieces += pieces;
                    self.batch.push(packet);
                }
                Handed::Send(packet) => {
                    let index = packet.port;
                    let refused = match self.ports.get(index) {
                        Some(slot) => slot.port.transmit(&mut self.pool, packet).err(),
                        None => Some(Refused::new(packet, DropReason::PortGone)),
                    };
                    match refused {
                        None => self.ports.queue(index),
                        Some(Refused { packet, reason }) => {
                            self.counters.refused(&packet, index, reason);
                            self.pool.put(packet.buffer);
                        }
                    }
                }
            }
        }
    }

    /// Hands a packet that was walked here to the worker of the port it leaves by. It comes back, and why, when nobody has
    /// the port, its worker is behind, or the port it came by has its share under way.
    #[inline(never)]
    pub(super) fn hand_on(peers: Option<&mut super::Peers>, packet: Packet<Frame>) -> Result<(), Refused> {
        let Some(peers) = peers else { return Err(Refused::new(packet, DropReason::PortGone)) };
        let owner = peers.owner(packet.port);
        if owner == peers.number() {
            return Err(Refused::new(packet, DropReason::PortGone));
        }
        let handed = peers.hand(owner, Handed::Send(packet));
        handed.map_err(|handed| Refused::new(handed.into_packet(), DropReason::TransmitRingFull))
    }

    /// Sends off what was handed over in this turn, and evens out the frames that moved with it.
    pub(super) fn share(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.send_all();
            self.pool.balance();
        }
    }

    /// Ends, and counts, what others had handed over and nobody will look at any more.
    pub(super) fn drop_handed(&mut self) {
        while let Some((from, mut parcel)) = self.peers.as_mut().and_then(|peers| peers.take()) {
            for handed in parcel.drain(..) {
                let reason = match &handed {
                    Handed::Walk(packet) => {
                        self.counters.received(packet.port, packet.buffer.bytes().len());
                        DropReason::Stopping
                    }
                    Handed::Send(_) => DropReason::PortGone,
                };
                let packet = handed.into_packet();
                self.counters.refused(&packet, packet.port, reason);
                self.pool.put(packet.buffer);
            }
            if let Some(peers) = &self.peers {
                peers.give_back(from, parcel);
            }
        }
    }
}
