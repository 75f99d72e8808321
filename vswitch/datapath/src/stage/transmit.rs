//! The last stage: every packet of the batch leaves the walk, in the order they came.

use vswitch_model::DropReason;

use super::{Context, Fate, Scratch, forward};
use crate::counters::{Run, Stage};
use crate::output::Output;
use crate::parse::{ETHERNET, Parsed};
use crate::read::length16;
use crate::{Buffer, Offload, Packet, Segment, fragment, neighbour, segment};

/// Takes the first `count` packets of `batch`.
#[inline(always)]
pub(crate) fn run<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    batch: &mut Vec<Packet<B>>,
    count: usize,
    out: &mut Output<B>,
) {
    if count == batch.len() && scratch.fates.all_sent(count) {
        return send_all(context, scratch, batch, out);
    }
    for (index, packet) in batch.drain(..count).enumerate() {
        match scratch.fates.of(index) {
            Fate::Sent => {
                scratch.egress[index] = packet.port;
                context.counters.sent(packet.port, packet.buffer.bytes().len());
                out.tx.push(packet);
            }
            Fate::Held => {
                scratch.egress[index] = packet.port;
                out.held.push((scratch.held[index], packet));
            }
            Fate::Split => {
                if let Err(reason) = split(context, scratch, index, packet, out) {
                    context.counters.dropped(scratch.ingress[index], reason);
                }
            }
            Fate::Segmented => {
                if let Err(reason) = cut(context, scratch, index, packet, out) {
                    context.counters.dropped(scratch.ingress[index], reason);
                }
            }
            Fate::Dropped(reason) | Fate::Reported(reason, _) => {
                context.counters.dropped(scratch.ingress[index], reason);
                out.dropped.push(packet.buffer);
            }
            // No stage leaves one behind; were one to, it would be counted rather than lost.
            Fate::Walking => {
                context.counters.dropped(scratch.ingress[index], DropReason::NotConfigured);
                out.dropped.push(packet.buffer);
            }
        }
    }
}

/// All packets of `batch` go on, as nearly always: counted port by port, and moved at once.
#[inline(always)]
fn send_all<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    batch: &mut Vec<Packet<B>>,
    out: &mut Output<B>,
) {
    let Some(first) = batch.first() else { return };
    let mut run = Run::of(first.port);
    for (packet, egress) in batch.iter().zip(&mut scratch.egress) {
        if packet.port != run.port {
            context.counters.sent_all(&run);
            run = Run::of(packet.port);
        }
        run.add(packet.buffer.bytes().len());
        *egress = packet.port;
    }
    context.counters.sent_all(&run);
    out.tx.append(batch);
}

/// Cuts a packet that may be cut and sends the pieces. The error says why it was dropped instead, or why some piece was.
#[cold]
fn split<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    index: usize,
    mut packet: Packet<B>,
    out: &mut Output<B>,
) -> Result<(), DropReason> {
    let Parsed { ttl, .. } = scratch.parsed[index];
    let mtu = context.tables.adjacency(scratch.adjacency[index]).mtu();
    if let Err(reason) = forward::finish_checksum(context, &mut packet) {
        scratch.drop(index, reason);
        out.dropped.push(packet.buffer);
        return Err(reason);
    }
    neighbour::set_ttl_v4(packet.buffer.bytes_mut(), ttl.saturating_sub(1));
    // The pieces wait behind `sent` until the first one is in its place before them.
    let sent = out.tx.len();
    let Output { tx, spare, .. } = out;
    let port = packet.port;
    let hold = |buffer| tx.push(Packet { buffer, port, offload: Offload::default() });
    if !fragment::split(&mut packet.buffer, &scratch.parsed[index], mtu, spare, hold) {
        scratch.drop(index, DropReason::FramesExhausted);
        out.dropped.push(packet.buffer);
        return Err(DropReason::FramesExhausted);
    }
    context.counters.passed(Stage::Split, 1);
    out.tx.iter_mut().skip(sent).for_each(|piece| piece.buffer.follow(&packet.buffer));
    out.tx.push(packet);
    if let Some(pieces) = out.tx.get_mut(sent..) {
        pieces.rotate_right(1);
    }
    send_pieces(context, scratch, index, sent, out)
}

/// Cuts a large packet into segments and sends these; its own buffer is of no more use. The error is as of [`split`].
#[inline(never)]
fn cut<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    index: usize,
    mut packet: Packet<B>,
    out: &mut Output<B>,
) -> Result<(), DropReason> {
    let parsed = &scratch.parsed[index];
    forward::decrement_ttl(packet.buffer.bytes_mut(), parsed);
    let mtu = context.tables.adjacency(scratch.adjacency[index]).mtu();
    let headers = segment::headers(packet.buffer.bytes(), parsed).saturating_sub(ETHERNET);
    let room = mtu.saturating_sub(length16(headers));
    let sent = out.tx.len();
    let Output { tx, spare, .. } = out;
    let port = packet.port;
    let whole = &packet.buffer;
    let hold = |mut buffer: B| {
        buffer.follow(whole);
        tx.push(Packet { buffer, port, offload: Offload::default() });
    };
    let segment = packet.offload.segment.ok_or(DropReason::TransportHeaderInvalid);
    let outcome = segment.and_then(|segment| {
        let segment = Segment { size: segment.size.min(room), ..segment };
        let cut = segment::cut(whole.bytes(), parsed, segment, spare, hold);
        if cut { Ok(()) } else { Err(DropReason::FramesExhausted) }
    });
    out.dropped.push(packet.buffer);
    if let Err(reason) = outcome {
        scratch.drop(index, reason);
        return Err(reason);
    }
    context.counters.passed(Stage::Segment, 1);
    send_pieces(context, scratch, index, sent, out)
}

/// Gives the pieces of a packet, which are the last in the output from `sent` on, the headers of its way. The error says why
/// some piece was dropped.
fn send_pieces<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    index: usize,
    sent: usize,
    out: &mut Output<B>,
) -> Result<(), DropReason> {
    let traffic_class = scratch.parsed[index].traffic_class;
    let (way, entropy) = (scratch.adjacency[index], scratch.entropy[index]);
    let port = scratch.ingress[index];
    scratch.egress[index] = context.tables.adjacency(way).port().unwrap_or(port);
    let mut outcome = Ok(());
    let mut at = sent;
    while let Some(piece) = out.tx.get_mut(at) {
        match forward::leave(context, piece, traffic_class, way, entropy) {
            Fate::Sent => {
                context.counters.sent(piece.port, piece.buffer.bytes().len());
                at += 1;
            }
            fate => {
                if let Fate::Dropped(reason) = fate {
                    outcome = Err(reason);
                }
                let piece = out.tx.remove(at);
                out.dropped.push(piece.buffer);
            }
        }
    }
    scratch.fates.set(index, outcome.map_or_else(Fate::Dropped, |()| Fate::Sent));
    outcome
}
