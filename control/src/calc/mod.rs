//! From objects to desired state: pure functions of their inputs.
//!
//! [`calculate`] says what one node's engine must have. What it gives depends on the objects alone, never on what they
//! were before; only which numbers stand for things is kept, in a [`Numbering`], so that what has not changed keeps
//! its number and a small change of the objects is a small change of the state. A [`Calculator`] comes to the same
//! states at the cost of what has changed.
//!
//! [`explain()`] says why the first packet of a flow would pass or not, from the same objects by another way.

use std::collections::BTreeMap;

use vswitch_model::{DesiredState, DomainPattern, Dscp, PodTunnels, Vni};

mod address_list;
mod calculator;
mod cluster;
pub mod explain;
mod identity;
mod inputs;
mod kept;
mod learned;
mod numbering;
mod objects;
mod output;
mod policy;
mod referred;
mod route;
#[cfg(test)]
mod tests;

pub use calculator::Calculator;
pub use explain::{End, ExplainError, Explainer, Explanation, Listed, Question, Side, explain};
pub use inputs::{Inputs, NamespacedName};
pub use learned::{LearnedNames, NameWanted};
pub use numbering::Numbering;
pub use objects::{Named, Namespaced};
pub use policy::selected_pods;

use self::kept::Kept;
use self::output::Output;

/// What the calculation needs to know that is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalcConfig {
    /// The VXLAN network of the cluster.
    pub vni: Vni,
    /// The UDP port of VXLAN.
    pub vxlan_port: u16,
    /// The UDP port of flannel's VXLAN, for nodes that run flannel.
    pub flannel_port: u16,
    /// What becomes of the DSCP through tunnels.
    pub dscp: Dscp,
    /// Which tunnel packets pods may send of their own.
    pub pod_tunnels: PodTunnels,
    /// MTU of the host port, in bytes.
    pub host_mtu: u16,
}

impl Default for CalcConfig {
    /// Calico's network on an underlay with an MTU of 1500 and IPv4.
    fn default() -> Self {
        Self {
            vni: Vni::CALICO,
            vxlan_port: 4789,
            flannel_port: 8472,
            dscp: Dscp::Inherit,
            pod_tunnels: PodTunnels::default(),
            host_mtu: 1450,
        }
    }
}

/// What a calculation comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calculated {
    /// What the engine must have. Whole in the sense of [`DesiredState::check`], short of its limits.
    pub state: DesiredState,
    /// What could not be done as the objects say, for people, sorted.
    pub problems: Vec<String>,
    /// The names that policies in force speak of.
    pub names: BTreeMap<DomainPattern, NameWanted>,
}

/// What the engine of `node` must have, given the objects of the cluster. `numbering` is that of the calculation
/// before, or new.
#[must_use]
pub fn calculate(inputs: &Inputs, node: &str, config: &CalcConfig, numbering: &mut Numbering) -> Calculated {
    let mut output = Output::default();
    let kept = Kept::from_nothing(inputs, (node, config), numbering, &mut output);
    Calculated { problems: kept.problems(), names: kept.names(), state: output.into_state() }
}
