//! One end of a flow, as a rule describes it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::{MAX_NETS, MAX_PORTS, MAX_SELECTOR, Port};
use crate::object::expression::{Expr, Selector};
use crate::object::ranges::{check_cidr, ranges_or_addresses};
use crate::object::selector::null_is_default;

/// What one end of a flow must be like: all that is given here, any entry of a list. Nothing given: anybody.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntityRule {
    /// Its address is in one of these ranges; an address is the range of it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "ranges_or_addresses")]
    pub nets: Vec<IpNet>,
    /// Its address is in none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "ranges_or_addresses")]
    pub not_nets: Vec<IpNet>,
    /// It is a pod or in a network set with labels like these.
    #[serde(default, skip_serializing_if = "Selector::is_blank", deserialize_with = "null_is_default")]
    pub selector: Selector,
    /// It is no pod and in no network set with labels like these, in whatever namespace.
    #[serde(default, skip_serializing_if = "Selector::is_blank", deserialize_with = "null_is_default")]
    pub not_selector: Selector,
    /// It is in a namespace with labels like these; `global()`: in none.
    #[serde(default, skip_serializing_if = "Selector::is_blank", deserialize_with = "null_is_default")]
    pub namespace_selector: Selector,
    /// It is an endpoint of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceMatch>,
    /// It is a pod that runs as one of these service accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountMatch>,
    /// Its port is one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ports: Vec<Port>,
    /// Its port is none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub not_ports: Vec<Port>,
}

/// A service, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceMatch {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its namespace. Missing: the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Service accounts, by name, by labels, or by both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountMatch {
    /// One of these names. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub names: Vec<String>,
    /// Labels like these.
    #[serde(default, skip_serializing_if = "Selector::is_blank", deserialize_with = "null_is_default")]
    pub selector: Selector,
}

/// Which end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

impl EntityRule {
    /// `has_namespace`: the policy has one, for a service without.
    pub(super) fn validate(&self, end: End, has_namespace: bool) -> Result<(), Invalid> {
        for (field, nets) in [("nets", &self.nets), ("notNets", &self.not_nets)] {
            at_most(field, nets.len(), MAX_NETS)?;
            for (index, net) in nets.iter().enumerate() {
                check_cidr(*net).map_err(|problem| Invalid::new(format!("{field}[{index}]"), problem))?;
            }
        }
        if let Some(index) = self.not_nets.iter().position(|net| net.prefix_len() == 0) {
            let problem =
                format!("{} is every address, so that the rule could match none", self.not_nets[index]);
            return Err(Invalid::new(format!("notNets[{index}]"), problem));
        }
        check_selector("selector", &self.selector, Globals::Refused)?;
        check_selector("notSelector", &self.not_selector, Globals::Refused)?;
        check_selector("namespaceSelector", &self.namespace_selector, Globals::Alone)?;
        for (field, ports) in [("ports", &self.ports), ("notPorts", &self.not_ports)] {
            at_most(field, ports.len(), MAX_PORTS)?;
        }
        if let Some(accounts) = &self.service_accounts {
            check_selector("selector", &accounts.selector, Globals::Refused)
                .map_err(|e| e.within("serviceAccounts"))?;
        }
        self.validate_services(end, has_namespace)
    }

    fn validate_services(&self, end: End, has_namespace: bool) -> Result<(), Invalid> {
        let Some(service) = &self.services else { return Ok(()) };
        if service.name.is_empty() {
            return Err(Invalid::new("services.name", "missing: the name of a Service"));
        }
        if !has_namespace && service.namespace.as_deref().is_none_or(str::is_empty) {
            return Err(Invalid::new("services.namespace", "missing: the policy has none to stand for it"));
        }
        let others = [
            ("selector", !self.selector.is_blank()),
            ("notSelector", !self.not_selector.is_blank()),
            ("namespaceSelector", !self.namespace_selector.is_blank()),
            ("nets", !self.nets.is_empty()),
            ("notNets", !self.not_nets.is_empty()),
            ("serviceAccounts", self.service_accounts.is_some()),
            ("ports", end == End::Destination && !self.ports.is_empty()),
            ("notPorts", end == End::Destination && !self.not_ports.is_empty()),
        ];
        match others.iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(Invalid::new(*field, "cannot stand beside services")),
            None => Ok(()),
        }
    }
}

/// Whether a field may say `global()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Globals {
    /// Nowhere in it.
    Refused,
    /// If that is all it says.
    Alone,
}

pub(super) fn check_selector(field: &str, selector: &Selector, globals: Globals) -> Result<(), Invalid> {
    let length = selector.to_string().chars().count();
    if length > MAX_SELECTOR {
        let problem = format!("a selector has at most {MAX_SELECTOR} characters; this one has {length}");
        return Err(Invalid::new(field, problem));
    }
    let fits = match globals {
        Globals::Refused => !has_global(selector.expr()),
        Globals::Alone => *selector.expr() == Expr::Global || !has_global(selector.expr()),
    };
    if fits {
        return Ok(());
    }
    let problem = match globals {
        Globals::Refused => "global() is only for the namespaceSelector of a rule's source or destination",
        Globals::Alone => "global() must be all that a namespaceSelector says",
    };
    Err(Invalid::new(field, problem))
}

fn has_global(expr: &Expr) -> bool {
    match expr {
        Expr::Global => true,
        Expr::And(terms) | Expr::Or(terms) => terms.iter().any(has_global),
        Expr::Not(term) => has_global(term),
        _ => false,
    }
}

pub(super) fn at_most(field: &str, count: usize, limit: usize) -> Result<(), Invalid> {
    if count <= limit {
        return Ok(());
    }
    Err(Invalid::new(field, format!("at most {limit} entries; these are {count}")))
}
