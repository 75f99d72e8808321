//! The VXLAN network that an agent's node has an end of, as it tells the others. Calico's nodes tell nothing of the sort: theirs is
//! a setting of the whole cluster.

use std::fmt;
use std::str::FromStr;

use vswitch_model::Vni;

/// A VXLAN network: who has another does not hear what is sent in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// Its number.
    pub vni: Vni,
    /// The UDP port it is sent to.
    pub port: u16,
}

/// A text that is no `VNI:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoVxlan;

impl FromStr for Vxlan {
    type Err = NoVxlan;

    fn from_str(text: &str) -> Result<Self, NoVxlan> {
        let (vni, port) = text.split_once(':').ok_or(NoVxlan)?;
        let vni = vni.parse().ok().and_then(|vni| Vni::new(vni).ok()).ok_or(NoVxlan)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(NoVxlan)?;
        Ok(Self { vni, port })
    }
}

impl fmt::Display for Vxlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.vni.get(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_as_it_is_written() {
        let network: Vxlan = "4096:4789".parse().unwrap();
        assert_eq!(
            (network.vni, network.port, network.to_string().as_str()),
            (Vni::CALICO, 4789, "4096:4789")
        );
        for wrong in ["", "4096", "4096:", "4096:0", "16777216:4789", "4096:65536", "x:1"] {
            assert_eq!(wrong.parse::<Vxlan>(), Err(NoVxlan), "{wrong}");
        }
    }
}
