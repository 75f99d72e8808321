//! Which pods and NetworkSets a [`PodMatch`] means.
//!
//! Calico gives labels of its own to what selectors see (libcalico-go/lib/backend/k8s/conversion): a pod has those of
//! its namespace, service account and orchestrator, a namespace and a service account that of their name. What a pod
//! does not have itself it has from its profiles, and, by a prefix, from its namespace and service account.

use super::view::{Expr, Namespaces, PodMatch};
use crate::calc::cluster::PodView;
use crate::calc::identity::PodKey;
use crate::calc::referred::{NetworkSetView, Referred};
use crate::object::Labels;
use crate::object::expression::{Known, LabelSource};

const NAMESPACE: &str = "projectcalico.org/namespace";
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
const NAME: &str = "projectcalico.org/name";
const OF_NAMESPACE: &str = "pcns.";
const OF_ACCOUNT: &str = "pcsa.";

/// A pod or a NetworkSet, as selectors see it.
#[derive(Debug, Clone, Copy)]
pub(in crate::calc) struct Candidate<'a> {
    /// Name and labels. None: it is in none.
    namespace: Option<(&'a str, &'a Labels)>,
    /// None: not known.
    labels: Option<&'a Labels>,
    account: Account<'a>,
    /// Labels lent by profiles, the first of a name counting.
    profiles: [Option<&'a Labels>; 2],
}

#[derive(Debug, Clone, Copy)]
enum Account<'a> {
    /// It has none: it is no pod.
    None,
    Unknown,
    /// Name and labels.
    Known(&'a str, Option<&'a Labels>),
}

impl<'a> Candidate<'a> {
    /// A pod. None: it is a container that is no pod, of which no policy speaks.
    pub(in crate::calc) fn pod(pod: &'a PodView<'_>, referred: &'a Referred) -> Option<Self> {
        (!pod.name.is_empty())
            .then(|| Self::of_pod(pod.namespace, pod.labels.as_ref(), pod.account, referred))
            .flatten()
    }

    /// Pods of one identity.
    pub(in crate::calc) fn identity(pod: &'a PodKey, referred: &'a Referred) -> Option<Self> {
        let account = pod.account.as_deref();
        pod.is_pod().then(|| Self::of_pod(&pod.namespace, pod.labels.as_ref(), account, referred)).flatten()
    }

    fn of_pod(
        namespace: &'a str,
        labels: Option<&'a Labels>,
        account: Option<&'a str>,
        referred: &'a Referred,
    ) -> Option<Self> {
        // Every pod's namespace is among them.
        let namespace_labels = referred.namespace(namespace)?;
        let profiles = referred.profile_labels(namespace, account);
        let account =
            account.map_or(Account::Unknown, |name| Account::Known(name, referred.account(namespace, name)));
        Some(Self { namespace: Some((namespace, namespace_labels)), labels, account, profiles })
    }

    /// A NetworkSet.
    pub(in crate::calc) fn network_set(set: &'a NetworkSetView, referred: &'a Referred) -> Self {
        static NONE: Labels = Labels::new();
        let namespace = set.namespace.as_deref();
        Self {
            namespace: namespace.map(|name| (name, referred.namespace(name).unwrap_or(&NONE))),
            labels: Some(set.labels()),
            account: Account::None,
            profiles: namespace.map_or([None; 2], |name| referred.profile_labels(name, None)),
        }
    }

    /// Whether a pod may have a label of this key, other than by profiles, without having it itself.
    pub(super) fn has_from_elsewhere(key: &str) -> bool {
        [NAMESPACE, ORCHESTRATOR, SERVICE_ACCOUNT].contains(&key)
            || key.starts_with(OF_NAMESPACE)
            || key.starts_with(OF_ACCOUNT)
    }

    /// A label that it does not have itself.
    fn inherited(&self, key: &str) -> Known<'_> {
        if let Some(value) = self.profiles.iter().flatten().find_map(|labels| labels.get(key)) {
            return Known::Value(value);
        }
        if let (Some(key), Some((name, labels))) = (key.strip_prefix(OF_NAMESPACE), self.namespace) {
            return of_named(name, Some(labels), key);
        }
        match (key.strip_prefix(OF_ACCOUNT), self.account) {
            (Some(_), Account::Unknown) => Known::Unknown,
            (Some(key), Account::Known(name, labels)) => of_named(name, labels, key),
            _ => Known::Absent,
        }
    }
}

impl LabelSource for Candidate<'_> {
    fn label(&self, key: &str) -> Known<'_> {
        match (key, self.account, self.namespace) {
            (NAMESPACE, _, Some((name, _))) => Known::Value(name),
            (ORCHESTRATOR, Account::Unknown | Account::Known(..), _) => Known::Value("k8s"),
            (SERVICE_ACCOUNT, Account::Unknown, _) => Known::Unknown,
            (SERVICE_ACCOUNT, Account::Known(name, _), _) => Known::Value(name),
            _ => match self.labels.map_or(Known::Unknown, |labels| labels.label(key)) {
                Known::Absent => self.inherited(key),
                known => known,
            },
        }
    }
}

/// Labels, and the name of what has them.
struct Named<'a>(&'a str, Option<&'a Labels>);

impl LabelSource for Named<'_> {
    fn label(&self, key: &str) -> Known<'_> {
        of_named(self.0, self.1, key)
    }
}

fn of_named<'a>(name: &'a str, labels: Option<&'a Labels>, key: &str) -> Known<'a> {
    match labels {
        _ if key == NAME => Known::Value(name),
        Some(labels) => labels.label(key),
        None => Known::Absent,
    }
}

impl PodMatch {
    /// Whether it means the candidate. None: that depends on what is not known of it.
    pub(in crate::calc) fn selects(&self, candidate: &Candidate<'_>) -> Option<bool> {
        let is_in = match (&self.namespaces, candidate.namespace) {
            (Namespaces::Any, _) => true,
            (Namespaces::Named(wanted), namespace) => namespace.is_some_and(|(name, _)| name == wanted),
            (Namespaces::Labelled(expr), namespace) => is_of_namespaces(expr, namespace),
        };
        if !is_in {
            return Some(false);
        }
        both(self.labels.evaluate(candidate), self.selects_account(candidate.account))
    }

    fn selects_account(&self, account: Account<'_>) -> Option<bool> {
        let Some(wanted) = &self.account else { return Some(true) };
        match account {
            Account::None => Some(false),
            Account::Unknown => None,
            Account::Known(name, labels) => {
                let is_named = wanted.names.is_empty() || wanted.names.iter().any(|wanted| wanted == name);
                both(Some(is_named), wanted.labels.evaluate(&Named(name, labels)))
            }
        }
    }
}

/// What is in no namespace has none of a namespace's labels.
pub(super) fn is_of_namespaces(expr: &Expr, namespace: Option<(&str, &Labels)>) -> bool {
    match expr {
        Expr::All => namespace.is_some(),
        Expr::Global => namespace.is_none(),
        Expr::And(terms) => terms.iter().all(|term| is_of_namespaces(term, namespace)),
        Expr::Or(terms) => terms.iter().any(|term| is_of_namespaces(term, namespace)),
        Expr::Not(term) => !is_of_namespaces(term, namespace),
        leaf => match namespace {
            Some((name, labels)) => leaf.evaluate(&Named(name, Some(labels))) == Some(true),
            None => leaf.matches(&Labels::new()),
        },
    }
}

/// Whether both hold.
pub(in crate::calc) const fn both(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), Some(true)) => Some(true),
        (Some(false), _) | (_, Some(false)) => Some(false),
        _ => None,
    }
}

/// Whether either holds.
pub(in crate::calc) const fn either(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(false), Some(false)) => Some(false),
        (Some(true), _) | (_, Some(true)) => Some(true),
        _ => None,
    }
}

/// The opposite.
pub(in crate::calc) const fn not(one: Option<bool>) -> Option<bool> {
    match one {
        Some(holds) => Some(!holds),
        None => None,
    }
}
