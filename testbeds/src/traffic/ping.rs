//! Pings: sizes, loss, and what a path that is too narrow answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::command::{failure, output};
use crate::netns::Netns;
use crate::{Error, Result};

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// To whom.
    pub to: IpAddr,
    /// Bytes of payload, without ICMP's header.
    pub payload: u32,
    /// How many.
    pub count: u32,
    /// Milliseconds between two.
    pub interval_ms: u32,
    /// Seconds to wait for what is still unanswered when all should have been sent: more where a busy machine sends late. What
    /// is answered at once waits for none of them.
    pub patience_s: u32,
    /// Whether it must not be fragmented; IPv6: whether the sender may not fragment it either.
    pub dont_fragment: bool,
}

impl Ping {
    /// Five of 56 bytes, 10 ms apart.
    #[must_use]
    pub fn to(to: IpAddr) -> Self {
        Self { to, payload: 56, count: 5, interval_ms: 10, patience_s: 2, dont_fragment: false }
    }

    /// The same with another payload.
    #[must_use]
    pub fn payload(self, payload: u32) -> Self {
        Self { payload, ..self }
    }

    /// The same, not to be fragmented.
    #[must_use]
    pub fn dont_fragment(self) -> Self {
        Self { dont_fragment: true, ..self }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Pinged {
    /// Echo requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// The MTU the path was found to have, when the packet was larger.
    pub mtu: Option<u32>,
}

/// Sends pings from a namespace and waits for the replies, for the last as long as its patience is.
pub fn ping(from: &Netns, what: &Ping) -> Result<Pinged> {
    let mut command = command(from, what);
    let output = output(&mut command, "")?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    parse(&text, what.count).ok_or_else(|| failure(&command, &output))
}

/// The command, to be run in the background; what it writes is for [`parse`].
///
/// Without a deadline ping waits for the last reply no longer than twice the longest round trip so far, and on a busy
/// machine counts it as lost though it is on its way. With one it goes on until it has as many replies as were asked
/// for, so what counts is which of the first so many were answered.
#[must_use]
pub fn command(from: &Netns, what: &Ping) -> std::process::Command {
    let mut command = from.command("ping");
    let interval = format!("{}.{:03}", what.interval_ms / 1000, what.interval_ms % 1000);
    command.args([
        "-n",
        "-c",
        &what.count.to_string(),
        "-i",
        &interval,
        "-s",
        &what.payload.to_string(),
        "-W",
        "1",
    ]);
    let deadline_s = what.patience_s + (what.count * what.interval_ms).div_ceil(1000);
    command.args(["-w", &deadline_s.to_string(), "-M", if what.dont_fragment { "do" } else { "dont" }]);
    command.arg(what.to.to_string());
    command
}

/// Reads what ping wrote of the first `count` pings.
pub fn parse(text: &str, count: u32) -> Option<Pinged> {
    let summary = text.lines().find(|line| line.contains("packets transmitted"))?;
    let sent: u32 = summary.split_whitespace().next()?.parse().ok()?;
    let replies = text.lines().filter(|line| line.contains(" bytes from ") && !line.contains("DUP!"));
    let sequence =
        |line: &str| line.split("icmp_seq=").nth(1)?.split_whitespace().next()?.parse::<u32>().ok();
    let answered: BTreeSet<_> = replies.filter_map(sequence).filter(|sequence| *sequence <= count).collect();
    let received = u32::try_from(answered.len()).ok()?;
    // "message too long, mtu=1430", "Frag needed and DF set (mtu = 1450)", "Packet too big: mtu=1430"
    let mtu = text.split("mtu").skip(1).find_map(|rest| {
        let digits = rest.trim_start_matches([' ', '=', ':']);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    });
    Some(Pinged { sent: sent.min(count), received, mtu })
}

/// As an error when not every ping came back.
pub fn all_answered(from: &Netns, what: &Ping) -> Result<()> {
    let pinged = ping(from, what)?;
    if pinged.sent == what.count && pinged.received == what.count {
        return Ok(());
    }
    Err(Error::other(format!(
        "of {} pings of {} bytes to {}, {} came back",
        pinged.sent, what.payload, what.to, pinged.received
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_path_mtu_are_read() {
        let text = "ping: local error: message too long, mtu=1430\n\n5 packets transmitted, 0 received, +5 errors, 100% packet loss, time 40ms\n";
        assert_eq!(parse(text, 5), Some(Pinged { sent: 5, received: 0, mtu: Some(1430) }));
        let text = "From 10.44.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1450)\n\
                    64 bytes from 10.44.0.2: icmp_seq=2 ttl=62 time=0.1 ms\n\
                    2 packets transmitted, 1 received, 50% packet loss\n";
        assert_eq!(parse(text, 2), Some(Pinged { sent: 2, received: 1, mtu: Some(1450) }));
        assert_eq!(parse("ping: unknown host", 5), None);
    }

    #[test]
    fn pings_beyond_those_asked_for_do_not_hide_a_loss() {
        let reply = |n: u32| format!("64 bytes from 10.44.0.2: icmp_seq={n} ttl=62 time=0.1 ms\n");
        let text = format!(
            "{}{}{}4 packets transmitted, 3 received, 25% packet loss\n",
            reply(1),
            reply(3),
            reply(4)
        );
        assert_eq!(parse(&text, 3), Some(Pinged { sent: 3, received: 2, mtu: None }));
    }
}
