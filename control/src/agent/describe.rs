//! What the agent knows of an object beside what is written in it.

use tonic::Status;
use vswitch_model::api::agent as pb;

use super::{Core, failure};
use crate::calc::{Explainer, Inputs};
use crate::ipam::Leak;
use crate::object::{
    Block, ClusterPeer, ClusterPolicy, Endpoint, EndpointSlice, IpPool, Key, Namespace, NetworkPolicy, Node,
    Object, ObjectMeta, Pod, PolicyType, Service, ServiceAccount,
};

impl Core {
    pub(super) async fn describe(&self, request: pb::DescribeRequest) -> Result<pb::DescribeReply, Status> {
        let key = super::objects::key(&request.kind, &request.namespace, &request.name)?;
        let entry = self.store.get(&key).await.map_err(|e| failure(&e))?;
        let inputs = self.reflector.current().inputs;
        let Some(entry) = entry else {
            let Some(tier) = super::tiers::built_in(&key) else { return Err(self.absent(&key).await) };
            let object = String::from_utf8_lossy(&tier.to_json()).into_owned();
            let mut facts = vec![fact("built in", ["yes: it is there without an object".to_owned()])];
            facts.extend(super::calico::facts(&inputs, &tier));
            return Ok(pb::DescribeReply { object, facts });
        };
        let facts = match entry.object() {
            Err(error) => vec![fact("cannot be read", [error.to_string()])],
            Ok(Object::NetworkPolicy(policy)) => of_policy(&inputs, &policy),
            Ok(Object::ClusterNetworkPolicy(policy)) => of_cluster_policy(&inputs, &policy),
            Ok(Object::AdminNetworkPolicy(policy)) => of_cluster_policy(&inputs, &policy),
            Ok(Object::BaselineAdminNetworkPolicy(policy)) => of_cluster_policy(&inputs, &policy),
            Ok(Object::ServiceAccount(account)) => of_service_account(&inputs, &account),
            Ok(Object::Service(service)) => of_service(&inputs, &service),
            Ok(Object::EndpointSlice(slice)) => of_endpoint_slice(&slice),
            Ok(Object::Pod(pod)) => of_pod(&inputs, &pod),
            Ok(Object::Namespace(namespace)) => of_namespace(&inputs, &namespace),
            Ok(Object::Node(node)) => of_node(&inputs, &node),
            Ok(Object::IpPool(pool)) => self.of_pool(&pool).await?,
            Ok(Object::Endpoint(endpoint)) => self.of_endpoint(&endpoint),
            Ok(Object::Block(block)) => of_block(&block),
            Ok(object) => super::calico::facts(&inputs, &object),
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
        let text = match progress.in_force.filter(|in_force| in_force.ports.contains_key(port)) {
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

pub(super) fn fact(name: &str, values: impl IntoIterator<Item = String>) -> pb::Fact {
    pb::Fact { name: name.to_owned(), values: values.into_iter().collect() }
}

pub(super) fn full_name(namespace: &str, name: &str) -> String {
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

/// Whether a policy of the whole cluster is for a pod.
fn is_subject(inputs: &Inputs, policy: &dyn ClusterPolicy, pod: &Pod) -> bool {
    let ClusterPeer::Pods { namespaces, pods } = policy.subject() else { return false };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = inputs.namespaces.get(namespace).map_or_else(
        || Namespace { metadata: ObjectMeta::named(namespace) }.labels(),
        |namespace| namespace.labels(),
    );
    !pod.spec.host_network
        && namespaces.matches(&labels)
        && pods.is_none_or(|selector| selector.matches(&pod.metadata.labels))
}

fn of_cluster_policy(inputs: &Inputs, policy: &dyn ClusterPolicy) -> Vec<pb::Fact> {
    let pods = inputs.pods.iter().filter(|(_, pod)| is_subject(inputs, policy, pod));
    let directions = PolicyType::ALL.into_iter().filter(|direction| !policy.rules(*direction).is_empty());
    vec![
        fact("speaks of", directions.map(|direction| direction.text().to_owned())),
        fact("selected pods", pods.map(|((namespace, name), _)| full_name(namespace, name))),
    ]
}

fn of_service_account(inputs: &Inputs, account: &ServiceAccount) -> Vec<pb::Fact> {
    let ObjectMeta { name, namespace, .. } = &account.metadata;
    let pods = inputs.pods.values().filter(|pod| {
        pod.metadata.namespace == *namespace && pod.service_account() == name && !pod.spec.host_network
    });
    vec![fact("pods", pods.map(|pod| pod.metadata.name.clone()))]
}

fn of_service(inputs: &Inputs, service: &Service) -> Vec<pb::Fact> {
    let ObjectMeta { name, namespace, .. } = &service.metadata;
    let slices = inputs.endpoint_slices.values();
    let slices = slices.filter(|s| s.metadata.namespace == *namespace && s.service() == Some(name.as_str()));
    vec![fact("endpoint slices", slices.map(|slice| slice.metadata.name.clone()))]
}

fn of_endpoint_slice(slice: &EndpointSlice) -> Vec<pb::Fact> {
    vec![fact("service", slice.service().map(str::to_owned))]
}

fn of_pod(inputs: &Inputs, pod: &Pod) -> Vec<pb::Fact> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let endpoints = inputs.endpoints.values().map(|endpoint| &endpoint.spec);
    let endpoints = endpoints.filter(|spec| spec.namespace == namespace && spec.pod == pod.metadata.name);
    let attached = endpoints.map(|spec| {
        let addresses = spec.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("{addresses} on node {}, port {}, container {}", spec.node, spec.port, spec.container_id)
    });
    let policies = Explainer::new(inputs).policies_of(&namespace, &pod.metadata.name).into_iter();
    vec![fact("attached", attached), fact("policies", policies.map(|listed| listed.text))]
}

fn of_namespace(inputs: &Inputs, namespace: &Namespace) -> Vec<pb::Fact> {
    let own = &namespace.metadata.name;
    let pods: Vec<_> = inputs.pods.keys().filter(|(of, _)| of == own).map(|(_, name)| name.clone()).collect();
    let mut explainer = Explainer::new(inputs);
    let mut of_cluster = Vec::new();
    for listed in pods.iter().flat_map(|pod| explainer.policies_of(own, pod)) {
        if listed.of_cluster && !of_cluster.contains(&listed.text) {
            of_cluster.push(listed.text);
        }
    }
    vec![
        fact("pods", pods),
        fact("policies", explainer.policies_within(own)),
        fact("policies of the cluster that select pods of it", of_cluster),
    ]
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
