//! `get routes`: where packets for an address go, and why they do not.

use serde_json::json;
use tonic::transport::Channel;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::engine::{ListRoutesRequest, RouteStatus};

use super::Failure;
use super::cli::Get;
use super::output::{Report, table};

/// All of them, or the one that leads to an address.
pub(super) async fn get(engine: &mut EngineClient<Channel>, get: &Get) -> Result<Report, Failure> {
    let address = get.address.map(|address| address.to_string()).unwrap_or_default();
    let request = ListRoutesRequest { address: address.clone(), limit: get.limit.unwrap_or(0) };
    let mut stream = engine.list_routes(request).await?.into_inner();
    let mut routes = Vec::new();
    while let Some(route) = stream.message().await? {
        routes.push(route);
    }
    if routes.is_empty() && !address.is_empty() {
        return Err(Failure(format!("no route leads to {address}")));
    }
    Ok(report(&routes))
}

fn report(routes: &[RouteStatus]) -> Report {
    let value = routes.iter().map(|route| {
        json!({
            "prefix": route.prefix, "kind": route.kind, "to": route.to, "encapsulation": route.encapsulation,
            "remote": route.remote, "port": route.port, "nextHopMac": route.next_hop_mac,
            "hindrance": route.hindrance, "source": route.source, "instead": route.instead,
        })
    });
    let rows = routes.iter().map(|route| {
        let kind = match route.encapsulation.as_str() {
            "" => route.kind.clone(),
            encapsulation => encapsulation.to_owned(),
        };
        let state = match (route.hindrance.as_str(), route.instead.as_str()) {
            ("", "") => "in use".to_owned(),
            ("", instead) => format!("in use, in place {instead}"),
            (hindrance, _) => hindrance.to_owned(),
        };
        [
            route.prefix.clone(),
            kind,
            route.to.clone(),
            route.remote.clone(),
            route.port.clone(),
            route.next_hop_mac.clone(),
            route.source.clone(),
            state,
        ]
    });
    let header = ["prefix", "kind", "to", "remote", "port", "next hop", "source", "state"];
    Report { value: value.collect(), text: table(header, rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_says_where_it_leads_and_what_hinders_it() {
        let tunnel = RouteStatus {
            prefix: "fd00::/122".into(),
            kind: "tunnel".into(),
            to: "n2".into(),
            encapsulation: "ipip".into(),
            remote: "192.0.2.2".into(),
            port: "eth0".into(),
            next_hop_mac: "02:00:00:00:00:02".into(),
            source: "agent".into(),
            instead: "of 2001:db8::2: the kernel has no route to it".into(),
            hindrance: String::new(),
        };
        let hindrance = "its uplink eth0 has no carrier".to_owned();
        let away = RouteStatus { hindrance, instead: String::new(), ..tunnel.clone() };
        let none = RouteStatus {
            prefix: "10.0.0.0/8".into(),
            kind: "unreachable".into(),
            source: "agent".into(),
            ..RouteStatus::default()
        };
        let report = report(&[tunnel, away, none]);
        let lines: Vec<_> = report.text.lines().collect();
        assert!(
            lines[1].ends_with("in use, in place of 2001:db8::2: the kernel has no route to it"),
            "{}",
            report.text
        );
        assert!(lines[1].contains("fd00::/122  ipip         n2  192.0.2.2"), "{}", report.text);
        assert!(lines[2].ends_with("agent   its uplink eth0 has no carrier"), "{}", report.text);
        assert!(lines[3].starts_with("10.0.0.0/8  unreachable  -"), "{}", report.text);
        assert_eq!(report.value[1]["hindrance"], "its uplink eth0 has no carrier");
    }
}
