//! What the agent knows of an object beside what is written in it.

use tonic::Status;
use vswitch_model::api::agent as pb;

use super::{Core, failure};
use crate::calc::Inputs;
use crate::ipam::Leak;
use crate::object::{Block, Endpoint, IpPool, Key, Namespace, NetworkPolicy, Node, Object, Pod, PolicyType};

impl Core {
    pub(super) async fn describe(&self, request: pb::DescribeRequest) -> Result<pb::DescribeReply, Status> {
        let key = self.key(&request.kind, &request.namespace, &request.name)?;
        let entry = self.store.get(&key).await.map_err(|e| failure(&e))?;
        let entry = entry.ok_or_else(|| Status::not_found(format!("{key} does not exist")))?;
        let inputs = self.reflector.current().inputs;
        let facts = match entry.object() {
            Err(error) => vec![fact("cannot be read", [error.to_string()])],
            Ok(Object::NetworkPolicy(policy)) => of_policy(&inputs, &policy),
            Ok(Object::Pod(pod)) => of_pod(&inputs, &pod),
            Ok(Object::Namespace(namespace)) => of_namespace(&inputs, &namespace),
            Ok(Object::Node(node)) => of_node(&inputs, &node),
            Ok(Object::IpPool(pool)) => self.of_pool(&pool).await?,
            Ok(Object::Endpoint(endpoint)) => self.of_endpoint(&endpoint),
            Ok(Object::Block(block)) => of_block(&block),
        };
        Ok(pb::DescribeReply { object: String::from_utf8_lossy(&entry.value).into_owned(), facts })
    }

    async fn of_pool(&self, pool: &IpPool) -> Result<Vec<pb::Fact>, Status> {
        let used = self.ipam.pool_use().await.map_err(|e| super::attach::no_address(&e))?;
        let used = used.into_iter().find(|used| used.name == pool.metadata.name);
        Ok(used.into_iter().map(|used| fact("use", [used.to_string()])).collect())
    }

    fn of_endpoint(&self, endpoint: &Endpoint) -> Vec<pb::Fact> {
        if endpoint.spec.node != self.settings.node {
            return vec![fact("in force", [format!("node {} knows", endpoint.spec.node)])];
        }
        let progress = self.engine.progress().borrow().clone();
        let port = &endpoint.spec.port;
        let text = match progress.in_force.filter(|in_force| in_force.state.ports.contains_key(port)) {
            None => "no".to_owned(),
            Some(in_force) => match in_force.failed_ports.get(port.as_str()) {
                Some(reason) => format!("no: {reason}"),
                None => format!("yes, in generation {}", in_force.generation),
            },
        };
        vec![fact("in force", [text])]
    }

    /// Addresses of this node that no attachment needs, though there was time to attach.
    pub(super) async fn leaks(&self, grace: std::time::Duration) -> Vec<Leak> {
        let snapshot = self.reflector.current();
        if !snapshot.synced || snapshot.stale.is_some() {
            return Vec::new();
        }
        let attached = |key: &Key| snapshot.inputs.endpoints.contains_key(&key.name);
        self.ipam.leaks(attached, grace).await.unwrap_or_default()
    }
}

fn fact(name: &str, values: impl IntoIterator<Item = String>) -> pb::Fact {
    pb::Fact { name: name.to_owned(), values: values.into_iter().collect() }
}

fn full_name(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    pod.metadata.namespace.as_deref() == Some(policy.namespace())
        && !pod.spec.host_network
        && policy.spec.pod_selector.matches(&pod.metadata.labels)
}

fn of_policy(inputs: &Inputs, policy: &NetworkPolicy) -> Vec<pb::Fact> {
    let pods = inputs.pods.iter().filter(|(_, pod)| selects(policy, pod));
    let directions = [(PolicyType::Ingress, "ingress"), (PolicyType::Egress, "egress")];
    let isolates = directions.iter().filter(|(direction, _)| policy.isolates(*direction));
    vec![
        fact("isolates", isolates.map(|(_, name)| (*name).to_owned())),
        fact("selected pods", pods.map(|((namespace, name), _)| full_name(namespace, name))),
    ]
}

fn of_pod(inputs: &Inputs, pod: &Pod) -> Vec<pb::Fact> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let endpoints = inputs.endpoints.values().map(|endpoint| &endpoint.spec);
    let endpoints = endpoints.filter(|spec| spec.namespace == namespace && spec.pod == pod.metadata.name);
    let attached = endpoints.map(|spec| {
        let addresses = spec.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("{addresses} on node {}, port {}, container {}", spec.node, spec.port, spec.container_id)
    });
    let policies = inputs.policies.iter().filter(|(_, policy)| selects(policy, pod));
    vec![
        fact("attached", attached),
        fact("policies", policies.map(|((namespace, name), _)| full_name(namespace, name))),
    ]
}

fn of_namespace(inputs: &Inputs, namespace: &Namespace) -> Vec<pb::Fact> {
    let own = |name: &str| name == namespace.metadata.name;
    let pods = inputs.pods.keys().filter(|(of, _)| own(of)).map(|(_, name)| name.clone());
    let policies = inputs.policies.keys().filter(|(of, _)| own(of)).map(|(_, name)| name.clone());
    vec![fact("pods", pods), fact("policies", policies)]
}

fn of_node(inputs: &Inputs, node: &Node) -> Vec<pb::Fact> {
    let name = &node.metadata.name;
    let blocks = inputs.blocks.values().filter(|block| block.spec.node.as_ref() == Some(name));
    let pods = inputs.endpoints.values().map(|e| &e.spec).filter(|spec| spec.node == *name);
    vec![
        fact("blocks", blocks.map(|block| block.spec.cidr.to_string())),
        fact("attached pods", pods.map(|spec| full_name(&spec.namespace, &spec.pod))),
    ]
}

fn of_block(block: &Block) -> Vec<pb::Fact> {
    match crate::ipam::held_in(block) {
        Ok(held) => vec![fact("held", held)],
        Err(problem) => vec![fact("cannot be read", [problem])],
    }
}
