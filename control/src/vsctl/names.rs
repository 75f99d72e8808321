//! Names of pods by their addresses, as the agent knows them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::transport::Channel;
use vswitch_model::api::agent::ListObjectsRequest;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::engine::FlowLogRecord;

use super::Failure;
use crate::object::Kind;

/// How often the agent is asked again, at most: a cluster has many pods.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// What the engine's words for a pod of another node, which it knows by its labels alone, begin with.
const BY_LABELS: &str = "pod ";

/// Who has which address.
pub(super) struct Names {
    /// None: nobody can be asked.
    agent: Option<AgentClient<Channel>>,
    asked: Option<Instant>,
    known: HashMap<IpAddr, String>,
}

impl Names {
    pub(super) fn of(agent: Option<AgentClient<Channel>>) -> Self {
        Self { agent, asked: None, known: HashMap::new() }
    }

    /// Puts `namespace/name` where a record has a pod's labels alone, as far as the agent knows it. What the agent cannot
    /// say is left as the engine says it: a log goes on without names.
    pub(super) async fn fill_in(&mut self, record: &mut FlowLogRecord) {
        let ends =
            [(&record.source, &mut record.source_name), (&record.destination, &mut record.destination_name)];
        for (address, name) in ends {
            let Ok(address) = address.parse() else { continue };
            if !name.starts_with(BY_LABELS) {
                continue;
            }
            if !self.known.contains_key(&address) {
                self.ask().await;
            }
            if let Some(known) = self.known.get(&address) {
                name.clone_from(known);
            }
        }
    }

    async fn ask(&mut self) {
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return;
        }
        self.asked = Some(Instant::now());
        let Some(agent) = &mut self.agent else { return };
        if let (Ok(pods), Ok(endpoints)) = (list(agent, Kind::Pod).await, list(agent, Kind::Endpoint).await) {
            self.known = by_address(&pods, &endpoints);
        }
    }
}

async fn list(agent: &mut AgentClient<Channel>, kind: Kind) -> Result<Vec<Value>, Failure> {
    let request =
        ListObjectsRequest { kind: kind.plural().to_owned(), all_namespaces: true, ..Default::default() };
    let objects = agent.list(request).await?.into_inner().objects;
    Ok(objects.iter().filter_map(|object| serde_json::from_str(object).ok()).collect())
}

/// Endpoints come before what the status of a pod says, as in the calculation.
fn by_address(pods: &[Value], endpoints: &[Value]) -> HashMap<IpAddr, String> {
    let mut known = HashMap::new();
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    let full_name =
        |namespace: &Value, name: &Value| Some(format!("{}/{}", namespace.as_str()?, name.as_str()?));
    for pod in pods.iter().filter(|pod| pod["spec"]["hostNetwork"] != true) {
        let status = &pod["status"];
        let all = status["podIPs"].as_array().into_iter().flatten().map(|ip| &ip["ip"]);
        for address in all.chain([&status["podIP"]]).filter_map(address) {
            known.extend(
                full_name(&pod["metadata"]["namespace"], &pod["metadata"]["name"])
                    .map(|name| (address, name)),
            );
        }
    }
    for spec in endpoints.iter().map(|endpoint| &endpoint["spec"]).filter(|spec| spec["pod"] != "") {
        for address in spec["addresses"].as_array().into_iter().flatten().filter_map(address) {
            known.extend(full_name(&spec["namespace"], &spec["pod"]).map(|name| (address, name)));
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn pods_of_other_nodes_get_their_names() {
        let pod =
            |name: &str, rest: Value| json!({"metadata": {"namespace": "x", "name": name}, "status": rest});
        let pods = [pod("a", json!({"podIP": "10.0.0.1"})), pod("b", json!({"podIPs": [{"ip": "fd00::2"}]}))];
        let endpoint = json!({"spec": {"namespace": "y", "pod": "c", "addresses": ["10.0.0.1", "10.0.0.3"]}});
        let known = by_address(&pods, &[endpoint]);
        let mut names = Names { known, ..Names::of(None) };
        let mut filled = async |source: &str, source_name: &str| {
            let (source, source_name) = (source.to_owned(), source_name.to_owned());
            let mut record = FlowLogRecord { source, source_name, ..FlowLogRecord::default() };
            names.fill_in(&mut record).await;
            record.source_name
        };
        assert_eq!(filled("10.0.0.1", "pod y {}").await, "y/c");
        assert_eq!(filled("fd00::2", "pod x {a=b}").await, "x/b");
        assert_eq!(filled("10.0.0.9", "pod x {}").await, "pod x {}", "nobody knows it");
        assert_eq!(filled("10.0.0.3", "media/local").await, "media/local");
    }
}
