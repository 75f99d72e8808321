//! Where a measurement looks into a turn: a mark after each stage. Without a probe nothing of it is compiled.

/// What has just been done, in the order of a turn with one batch. A stage without packets is marked too, but for
/// [`Mark::Miss`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mark {
    /// New tables and commands were looked for, and the clock. Marked by the worker.
    Begin,
    /// A port was asked for packets. Marked by the worker.
    Receive,
    /// Headers were read and packets sorted by the kind of port they came by. Of pods' packets of the usual form sources were
    /// checked and flow keys made, too.
    Parse,
    /// Pods' other packets were checked to be their own.
    Source,
    /// Tunnel headers were taken off, and their inner sources checked.
    Decapsulate,
    /// The other flow keys were made and hashed.
    Key,
    /// Keys were looked up.
    Lookup,
    /// Known flows were advanced, and their packets sent that nothing more is to be asked of.
    Advance,
    /// New flows were judged and entered.
    Miss,
    /// Of all others TTLs were decremented, headers of the next hop and of tunnels written.
    Forward,
    /// ICMP errors were built.
    Report,
    /// Packets were counted and handed out of the walk.
    Leave,
    /// Packets were handed to ports, and the frames of others freed. Marked by the worker.
    Transmit,
    /// Ports were flushed. Marked by the worker.
    Flush,
    /// Some flows were looked at for having expired, and the turn was counted. Marked by the worker.
    End,
}

impl Mark {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Begin,
        Self::Receive,
        Self::Parse,
        Self::Source,
        Self::Decapsulate,
        Self::Key,
        Self::Lookup,
        Self::Advance,
        Self::Miss,
        Self::Forward,
        Self::Report,
        Self::Leave,
        Self::Transmit,
        Self::Flush,
        Self::End,
    ];

    /// Its name in results.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Receive => "receive",
            Self::Parse => "parse",
            Self::Source => "source",
            Self::Decapsulate => "decapsulate",
            Self::Key => "key",
            Self::Lookup => "lookup",
            Self::Advance => "advance",
            Self::Miss => "miss",
            Self::Forward => "forward",
            Self::Report => "report",
            Self::Leave => "leave",
            Self::Transmit => "transmit",
            Self::Flush => "flush",
            Self::End => "end",
        }
    }
}

/// Is told what has just been done.
pub trait Probe {
    /// This has just been done.
    fn mark(&mut self, mark: Mark);
}

/// Nobody looks: compiles to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    #[inline(always)]
    fn mark(&mut self, _: Mark) {}
}
