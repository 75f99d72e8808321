//! `get domains`: what DNS has told pods of this node of the names that policies speak of.

use serde_json::json;
use tonic::transport::Channel;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::agent::{ListNamesReply, ListNamesRequest};

use super::Failure;
use super::cli::Get;
use super::output::{Report, duration, table};

/// Whether it is what a person calls them.
pub(super) fn is_noun(kind: &str) -> bool {
    ["domains", "domain", "domainnames"].contains(&kind.to_ascii_lowercase().as_str())
}

/// Why this `get` makes no sense for names.
pub(super) fn problem(get: &Get) -> Option<&'static str> {
    if get.namespace.is_some() || get.all_namespaces {
        return Some("domains have no namespace: leave out --namespace and --all-namespaces");
    }
    if get.selector.is_some() {
        return Some("domains have no labels: --selector is for objects");
    }
    if get.names.len() > 1 {
        return Some("domains: one name, or none for all");
    }
    (get.address.is_some() || get.limit.is_some()).then_some("--address and --limit are for flows and routes")
}

/// All names, or one.
pub(super) async fn get(agent: &mut AgentClient<Channel>, name: Option<&str>) -> Result<Report, Failure> {
    let mut known = agent.list_names(ListNamesRequest {}).await?.into_inner();
    if let Some(name) = name {
        let wanted = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        known.names.retain(|it| it.name == wanted);
        known.unknown.retain(|it| it.pattern == wanted);
        if known.names.is_empty() && known.unknown.is_empty() {
            let text = format!("nothing is known of {wanted}, and no policy of this node names it");
            return Err(Failure(text));
        }
    }
    Ok(report(&known))
}

fn report(known: &ListNamesReply) -> Report {
    let names = known.names.iter().map(|it| {
        json!({
            "name": it.name, "address": it.address, "ttlLeftMs": it.ttl_left_ms, "server": it.server,
            "policies": it.policies,
        })
    });
    let unknown = known.unknown.iter().map(|it| json!({"pattern": it.pattern, "policies": it.policies}));
    let rows = known.names.iter().map(|it| {
        let left = match it.ttl_left_ms {
            0 => "over, in use".to_owned(),
            left => duration(left),
        };
        [it.name.clone(), it.address.clone(), left, it.server.clone(), it.policies.join(", ")]
    });
    let nothing = known.unknown.iter().map(|it| {
        let none = || "-".to_owned();
        [it.pattern.clone(), "never learned, or over".to_owned(), none(), none(), it.policies.join(", ")]
    });
    Report {
        value: json!({"names": names.collect::<Vec<_>>(), "unknown": unknown.collect::<Vec<_>>()}),
        text: table(["name", "address", "left", "told by", "policies"], rows.chain(nothing)),
    }
}
