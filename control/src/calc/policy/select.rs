//! Which pods and NetworkSets a [`PodMatch`] means.
//!
//! Calico gives labels of its own to what selectors see (libcalico-go/lib/backend/k8s/conversion): a pod has those of
//! its namespace, service account and orchestrator, a namespace and a service account that of their name. What a pod
//! does not have itself it has from its profiles, and, by a prefix, from its namespace and service account.

use super::view::{Expr, Namespaces, PodMatch};
use crate::calc::cluster::PodView;
use crate::calc::identity::PodKey;
use crate::calc::referred::{AccountLabels, NamespaceView, NetworkSetView, Referred};
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
    /// None: it is in none.
    namespace: Option<&'a NamespaceView>,
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
    Known(&'a str, AccountLabels<'a>),
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
        let view = referred.namespace(namespace)?;
        let profiles = referred.profile_labels(namespace, account);
        let account =
            account.map_or(Account::Unknown, |name| Account::Known(name, referred.account(namespace, name)));
        Some(Self { namespace: Some(view), labels, account, profiles })
    }

    /// A NetworkSet.
    pub(in crate::calc) fn network_set(set: &'a NetworkSetView, referred: &'a Referred) -> Self {
        let namespace = set.namespace.as_deref();
        Self {
            // The namespace of every set is among them.
            namespace: namespace.and_then(|name| referred.namespace(name)),
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
        if let (Some(key), Some(namespace)) = (key.strip_prefix(OF_NAMESPACE), self.namespace) {
            return if key == NAME { Known::Value(&namespace.name) } else { namespace.own_label(key) };
        }
        match (key.strip_prefix(OF_ACCOUNT), &self.account) {
            (Some(_), Account::Unknown) => Known::Unknown,
            (Some(NAME), Account::Known(name, _)) => Known::Value(name),
            (Some(key), Account::Known(_, labels)) => labels.label(key),
            _ => Known::Absent,
        }
    }
}

impl LabelSource for Candidate<'_> {
    fn label(&self, key: &str) -> Known<'_> {
        match (key, self.account, self.namespace) {
            (NAMESPACE, _, Some(namespace)) => Known::Value(&namespace.name),
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

impl LabelSource for NamespaceView {
    fn label(&self, key: &str) -> Known<'_> {
        if key == NAME { Known::Value(&self.name) } else { self.own_label(key) }
    }
}

/// Name and labels.
struct NamedAccount<'a>(&'a str, AccountLabels<'a>);

impl LabelSource for NamedAccount<'_> {
    fn label(&self, key: &str) -> Known<'_> {
        if key == NAME { Known::Value(self.0) } else { self.1.label(key) }
    }
}

impl PodMatch {
    /// Whether it means the candidate. None: that depends on what is not known of it.
    pub(in crate::calc) fn selects(&self, candidate: &Candidate<'_>) -> Option<bool> {
        let is_in = match (&self.namespaces, candidate.namespace) {
            (Namespaces::Any, _) => Some(true),
            (Namespaces::Named(wanted), namespace) => Some(namespace.is_some_and(|it| it.name == *wanted)),
            (Namespaces::Labelled(expr), namespace) => is_of_namespaces(expr, namespace),
        };
        if is_in == Some(false) {
            return Some(false);
        }
        both(is_in, both(self.labels.evaluate(candidate), self.selects_account(candidate.account)))
    }

    fn selects_account(&self, account: Account<'_>) -> Option<bool> {
        let Some(wanted) = &self.account else { return Some(true) };
        match account {
            Account::None => Some(false),
            Account::Unknown => None,
            Account::Known(name, labels) => {
                let is_named = wanted.names.is_empty() || wanted.names.iter().any(|wanted| wanted == name);
                both(Some(is_named), wanted.labels.evaluate(&NamedAccount(name, labels)))
            }
        }
    }
}

/// What is in no namespace has none of a namespace's labels. None: that depends on labels of the namespace that are not
/// known.
pub(super) fn is_of_namespaces(expr: &Expr, namespace: Option<&NamespaceView>) -> Option<bool> {
    let of = |term: &Expr| is_of_namespaces(term, namespace);
    match expr {
        Expr::All => Some(namespace.is_some()),
        Expr::Global => Some(namespace.is_none()),
        Expr::And(terms) => terms.iter().map(of).fold(Some(true), both),
        Expr::Or(terms) => terms.iter().map(of).fold(Some(false), either),
        Expr::Not(term) => not(of(term)),
        leaf => match namespace {
            Some(namespace) => leaf.evaluate(namespace),
            None => Some(leaf.matches(&Labels::new())),
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
