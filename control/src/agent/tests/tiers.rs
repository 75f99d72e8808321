//! Calico's policies and their tiers, as people apply and delete them.

use super::*;

const TIER: &str =
    "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: platform}, spec: {order: 10}}\n";
const POLICY: &str = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: platform.p, namespace: media}, \
                      spec: {tier: platform, ingress: [{action: Deny}]}}\n";

fn document(text: &str) -> Vec<pb::Document> {
    vec![pb::Document { file: "c.yaml".into(), text: text.into() }]
}

async fn apply(bench: &Bench, text: &str) -> Result<Vec<String>, Status> {
    let request = pb::ApplyObjectsRequest { documents: document(text), ..Default::default() };
    let results = bench.api.apply(Request::new(request)).await?.into_inner().results;
    Ok(results.into_iter().map(|r| format!("{} {} {}", r.kind, r.name, r.outcome)).collect())
}

#[tokio::test]
async fn no_policy_is_without_its_tier() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    let status = apply(&bench, POLICY).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let says = "c.yaml, document 1, NetworkPolicy.projectcalico.org media/platform.p: spec.tier: the tier platform does \
                not exist";
    assert!(status.message().starts_with(says), "{status}");
    let results = apply(&bench, &format!("{POLICY}---\n{TIER}")).await.unwrap();
    assert_eq!(results, ["Tier platform created", "NetworkPolicy.projectcalico.org platform.p created"]);
    assert_eq!(bench.engine.content().state.policies.len(), 1, "in force when it is said");
    assert_eq!(
        apply(&bench, POLICY).await.unwrap()[0],
        "NetworkPolicy.projectcalico.org platform.p unchanged"
    );

    let delete = |kind: &str, name: &str, documents: &str, force| {
        let objects = if documents.is_empty() { vec![named(kind, name)] } else { Vec::new() };
        let documents = if documents.is_empty() { Vec::new() } else { document(documents) };
        let namespace = "media".to_owned();
        bench.api.delete(Request::new(pb::DeleteObjectsRequest {
            namespace,
            objects,
            documents,
            force,
            ..Default::default()
        }))
    };
    let status = delete("tier", "platform", "", false).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let says = "tiers/platform is in use by networkpolicies.projectcalico.org/media/platform.p; ";
    assert!(status.message().starts_with(says), "{status}");
    // Without its tier a policy closes the pods it selects.
    delete("tier", "platform", "", true).await.unwrap();
    let state = bench.engine.content().state;
    assert!(state.policies.is_empty() && state.subjects.len() == 1);
    apply(&bench, TIER).await.unwrap();
    delete("", "", &format!("{TIER}---\n{POLICY}"), false).await.unwrap();
    assert!(bench.engine.content().state.subjects.is_empty());
}

#[tokio::test]
async fn listings_tell_the_two_network_policies_apart() {
    let bench = Bench::with_cluster().await;
    let own = POLICY.replace("tier: platform, ", "");
    let kubernetes =
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: k, namespace: media}}\n";
    apply(&bench, &format!("{own}---\n{kubernetes}")).await.unwrap();
    for (kind, full, name) in [
        ("netpol", "NetworkPolicy", "k"),
        ("NetworkPolicy", "NetworkPolicy", "k"),
        ("networkpolicies.projectcalico.org", "NetworkPolicy.projectcalico.org", "platform.p"),
        ("caliconetworkpolicy", "NetworkPolicy.projectcalico.org", "platform.p"),
    ] {
        let request =
            pb::ListObjectsRequest { kind: kind.into(), namespace: "media".into(), ..Default::default() };
        let reply = bench.api.list(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(reply.kind, full);
        assert!(
            reply.objects.len() == 1 && reply.objects[0].contains(&format!("\"name\":\"{name}\"")),
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn descriptions_tell_whom_a_policy_is_for_and_what_is_in_a_tier() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    apply(&bench, &format!("{POLICY}---\n{TIER}")).await.unwrap();
    let facts = async |kind: &str, name: &str| {
        let (kind, namespace, name) = (kind.to_owned(), "media".to_owned(), name.to_owned());
        let described = bench.api.describe(Request::new(pb::DescribeRequest { kind, namespace, name }));
        let facts = described.await.unwrap().into_inner().facts;
        facts.into_iter().map(|fact| format!("{}: {}", fact.name, fact.values.join(" "))).collect::<Vec<_>>()
    };
    let expected = ["applies to: ingress", "selected pods: media/relay"];
    assert_eq!(facts("caliconetworkpolicy", "platform.p").await, expected);
    assert_eq!(
        facts("tier", "platform").await,
        ["policies: NetworkPolicy.projectcalico.org media/platform.p"]
    );

    let staged = "{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: platform.s}, \
                  spec: {tier: platform, order: 7, ingress: [{action: Allow}]}}\n---\n\
                  {apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: g}, spec: {order: 1}}\n---\n\
                  {apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, \
                  metadata: {name: platform.p, namespace: media}, spec: {tier: platform, stagedAction: Delete}}\n---\n\
                  {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: k, namespace: media}, \
                  spec: {podSelector: {matchLabels: {app: relay}}}}\n";
    apply(&bench, staged).await.unwrap();
    let policies = "policies: StagedGlobalNetworkPolicy platform.s (tier platform): staged \
                    NetworkPolicy.projectcalico.org media/platform.p (tier platform): in force, removal staged \
                    GlobalNetworkPolicy g NetworkPolicy media/k";
    assert_eq!(facts("pod", "relay").await[1], policies);
    let of_namespace = facts("namespace", "media").await;
    assert_eq!(
        of_namespace[1],
        "policies: NetworkPolicy.projectcalico.org media/platform.p (tier platform): in force, removal staged \
         NetworkPolicy media/k"
    );
    assert!(of_namespace[2].ends_with(" GlobalNetworkPolicy g"), "{of_namespace:?}");
    let in_tier = "policies: StagedGlobalNetworkPolicy platform.s: staged \
                   NetworkPolicy.projectcalico.org media/platform.p: in force, removal staged \
                   StagedNetworkPolicy media/platform.p: stages a removal";
    assert_eq!(facts("tier", "platform").await, [in_tier]);
    let in_default = "policies: GlobalNetworkPolicy g NetworkPolicy media/k";
    assert_eq!(facts("tier", "default").await, ["built in: yes: it is there without an object", in_default]);
    let status = bench.api.get_status(Request::new(pb::GetAgentStatusRequest {})).await.unwrap().into_inner();
    assert_eq!((status.policies, status.policies_staged), (3, 2));
}

#[tokio::test]
async fn what_does_nothing_as_it_is_is_noted() {
    let bench = Bench::with_cluster().await;
    let notes = async |text: &str| {
        let request = pb::ApplyObjectsRequest { documents: document(text), ..Default::default() };
        let results = bench.api.apply(Request::new(request)).await.unwrap().into_inner().results;
        results.into_iter().map(|result| result.note).collect::<Vec<_>>()
    };
    let policy = |namespace: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: k, namespace: {namespace}}}}}\n"
        )
    };
    assert_eq!(notes(&policy("media")).await, [""]);
    let block = "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}}\n";
    let block = policy("media").replace("}}\n", &format!("}}, {block}"));
    assert_eq!(
        notes(&block).await,
        ["spec.ingress[0].from[0].ipBlock.cidr: 10.0.0.1/8 is taken as 10.0.0.0/8"]
    );
    assert_eq!(notes(&policy("meda")).await, ["namespace meda is not there: it selects no pod"]);
    let with_namespace = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: meda}}\n";
    assert_eq!(notes(&format!("{}{with_namespace}", policy("meda"))).await, ["", ""]);
    let removal = |kind: &str, name: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: {name}, namespace: media}}, \
             spec: {{stagedAction: Delete}}}}\n"
        )
    };
    assert_eq!(notes(&removal("StagedKubernetesNetworkPolicy", "k")).await, [""]);
    assert_eq!(
        notes(&removal("StagedNetworkPolicy", "k")).await,
        ["networkpolicies.projectcalico.org/media/k is not there: its removal changes nothing"]
    );
    let with_rules = |version: &str, kind: &str, types: &str| {
        let rule = if version.starts_with("networking") { "{}" } else { "{action: Allow}" };
        let rule = if kind == "StagedKubernetesNetworkPolicy" { "{}" } else { rule };
        format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: r, namespace: media}}, spec: {{{types} egress: [{rule}]}}}}\n"
        )
    };
    for (version, kind, field) in [
        ("networking.k8s.io/v1", "NetworkPolicy", "policyTypes"),
        ("projectcalico.org/v3", "NetworkPolicy", "types"),
        ("projectcalico.org/v3", "StagedNetworkPolicy", "types"),
        ("projectcalico.org/v3", "StagedKubernetesNetworkPolicy", "policyTypes"),
    ] {
        let of_types = async |types: &str| {
            notes(&with_rules(version, kind, &format!("{field}: [{types}],"))).await.remove(0)
        };
        let says = format!("its egress rules are never asked: spec.{field} does not have Egress");
        assert_eq!(of_types("Ingress").await, says, "{kind}");
        assert_eq!(of_types("Ingress, Egress").await, "", "{kind}");
        assert_eq!(notes(&with_rules(version, kind, "")).await, [""], "{kind}: they follow from its rules");
    }
}

#[tokio::test]
async fn who_asks_for_the_other_network_policy_is_told_and_tiers_without_objects_are_listed() {
    let bench = Bench::with_cluster().await;
    apply(&bench, &POLICY.replace("tier: platform, ", "")).await.unwrap();
    let says = "networkpolicies/media/platform.p does not exist; \
                networkpolicies.projectcalico.org/media/platform.p does: its kind is networkpolicies.projectcalico.org";
    let (kind, namespace, name) = ("netpol".to_owned(), "media".to_owned(), "platform.p".to_owned());
    let asked = pb::DescribeRequest { kind: kind.clone(), namespace: namespace.clone(), name: name.clone() };
    let status = bench.api.describe(Request::new(asked)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, says));
    let objects = vec![named(&kind, &name)];
    let asked = pb::DeleteObjectsRequest { namespace, objects, ..Default::default() };
    assert_eq!(bench.api.delete(Request::new(asked)).await.unwrap_err().message(), says);
    apply(&bench, TIER).await.unwrap();
    let asked = pb::ListObjectsRequest { kind: "tier".into(), ..Default::default() };
    let listed = bench.api.list(Request::new(asked)).await.unwrap().into_inner().objects;
    let names = ["default", "kube-admin", "kube-baseline", "platform"];
    assert_eq!(listed.len(), names.len(), "{listed:?}");
    for (object, name) in listed.iter().zip(names) {
        assert!(object.contains(&format!("\"name\":\"{name}\"")), "{object}");
    }
    let asked = pb::DeleteObjectsRequest { objects: vec![named("tier", "default")], ..Default::default() };
    let status = bench.api.delete(Request::new(asked)).await.unwrap_err();
    assert_eq!(status.message(), "tiers/default is built in: it is there without an object");
}
