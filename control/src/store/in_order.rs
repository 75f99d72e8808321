//! Whether a store tells of all kinds in the order of their changes, as one with one count for all kinds does. Where
//! [`Store::untold`](super::Store::untold) says that nothing is untold, an attach relies on it.

use super::conformance::next;
use super::{ByKind, Event, Revision, Revisions, SharedStore};
use crate::object::{Key, Kind};

const WRITERS: [Kind; 4] = [Kind::NetworkPolicy, Kind::Namespace, Kind::Endpoint, Kind::Tier];
/// How many objects each writes.
const OBJECTS: usize = 25;

/// Writes objects of several kinds, one after another and at once, into a store that is empty.
pub(super) async fn is_kept(store: SharedStore) -> bool {
    if store.untold().await != Ok(Revisions::default()) {
        return false;
    }
    let start = store.list(None).await.unwrap().revisions;
    let mut live = store.watch(None, &start).await.unwrap();
    // What an attach does: the policy is older than the endpoint.
    let policy = store.create(&Key::new(Kind::NetworkPolicy, "x", "older"), Vec::new()).await.unwrap();
    let endpoint = store.create(&Key::cluster(Kind::Endpoint, "newer"), Vec::new()).await.unwrap();
    let writers = WRITERS.map(|kind| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..OBJECTS {
                store.create(&Key::new(kind, "x", format!("n{n}")), Vec::new()).await.unwrap();
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    let mut late = store.watch(None, &start).await.unwrap();
    let mut told = Vec::new();
    for watch in [&mut live, &mut late] {
        let mut revisions: Vec<Revision> = Vec::new();
        while revisions.len() < 2 + WRITERS.len() * OBJECTS {
            let event = next(watch).await.unwrap();
            revisions.extend(matches!(event, Event::Put(_)).then_some(event.at().revision));
        }
        told.push(revisions);
    }
    let is_in_order = |told: &Vec<Revision>| told.is_sorted_by(|one, next| one < next);
    told[0].starts_with(&[policy, endpoint]) && told.iter().all(is_in_order)
}

#[tokio::test]
async fn it_is_seen_where_it_is_not() {
    assert!(!is_kept(ByKind::new()).await);
}
