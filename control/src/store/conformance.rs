//! What every store must do, told once and run against each.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;

use super::{Applied, At, Event, Revision, SharedStore, StoreError, Watch, apply};
use crate::object::{Key, Kind, Namespace, Object, ObjectMeta};

/// Runs everything, one after another, in a store that is empty.
pub(super) async fn run(store: SharedStore) {
    changes_are_compare_and_swap(&store).await;
    lists_are_of_one_kind_and_each_kind_of_one_moment(&store).await;
    watches_tell_everything_once_and_each_kind_in_order(&store).await;
    of_many_writers_one_wins(&store).await;
    apply_writes_only_what_differs(&store).await;
    many_keys_are_listed_whole(&store).await;
}

pub(super) async fn next(watch: &mut Watch) -> Result<Event, StoreError> {
    tokio::time::timeout(Duration::from_secs(20), watch.next())
        .await
        .expect("an event in time")
        .expect("no end")
}

async fn changes_are_compare_and_swap(store: &SharedStore) {
    let key = Key::new(Kind::Pod, "x", "a");
    assert_eq!(store.get(&key).await, Ok(None));
    assert_eq!(store.update(&key, b"0".to_vec(), Revision(1)).await, Err(StoreError::NotFound(key.clone())));
    assert_eq!(store.delete(&key, None).await, Err(StoreError::NotFound(key.clone())));

    let first = store.create(&key, b"1".to_vec()).await.unwrap();
    assert_eq!(store.create(&key, b"2".to_vec()).await, Err(StoreError::Exists(key.clone())));
    let entry = store.get(&key).await.unwrap().unwrap();
    assert_eq!((entry.key, entry.value, entry.revision), (key.clone(), b"1".to_vec(), first));

    let second = store.update(&key, b"2".to_vec(), first).await.unwrap();
    assert!(second > first);
    let conflict = StoreError::Conflict { key: key.clone(), expected: first, found: second };
    assert_eq!(store.update(&key, b"3".to_vec(), first).await, Err(conflict.clone()));
    assert_eq!(store.delete(&key, Some(first)).await, Err(conflict));
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, b"2");

    let third = store.delete(&key, Some(second)).await.unwrap();
    assert!(third > second);
    assert_eq!(store.get(&key).await, Ok(None));
    let fourth = store.create(&key, b"4".to_vec()).await.unwrap();
    assert!(fourth > third, "a key that comes back does not get an old revision");
    store.delete(&key, None).await.unwrap();
}

async fn lists_are_of_one_kind_and_each_kind_of_one_moment(store: &SharedStore) {
    let keys = [
        Key::cluster(Kind::Namespace, "x"),
        Key::cluster(Kind::Node, "b"),
        Key::cluster(Kind::Node, "a"),
        Key::new(Kind::Pod, "x", "a"),
    ];
    let before = store.list(None).await.unwrap().revisions;
    let mut last = before;
    for key in &keys {
        let revision = store.create(key, key.to_string().into_bytes()).await.unwrap();
        assert!(!last.have(At::new(key.kind, revision)));
        last.raise(At::new(key.kind, revision));
    }
    let names =
        |listing: super::Listing| listing.entries.into_iter().map(|e| e.key.to_string()).collect::<Vec<_>>();
    let all = store.list(None).await.unwrap();
    for kind in [Kind::Namespace, Kind::Node, Kind::Pod] {
        assert!(all.revisions.of(kind) >= last.of(kind) && !before.have(At::new(kind, last.of(kind))));
    }
    assert_eq!(names(all), ["namespaces/x", "nodes/a", "nodes/b", "pods/x/a"]);
    assert_eq!(names(store.list(Some(Kind::Node)).await.unwrap()), ["nodes/a", "nodes/b"]);
    let none = store.list(Some(Kind::IpPool)).await.unwrap();
    assert!(none.entries.is_empty() && none.revisions.of(Kind::IpPool) >= before.of(Kind::IpPool));
    // An empty list has a revision, too: what comes after it is told.
    let mut watch = store.watch(Some(Kind::IpPool), &none.revisions).await.unwrap();
    let pool = Key::cluster(Kind::IpPool, "p");
    store.create(&pool, b"1".to_vec()).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().key(), Some(&pool));
    for key in keys.iter().chain([&pool]) {
        store.delete(key, None).await.unwrap();
    }
}

/// Notes what a watch of several kinds tells, each kind's by itself.
async fn by_kind(watch: &mut Watch, count: usize) -> BTreeMap<Kind, Vec<Event>> {
    let mut told: BTreeMap<Kind, Vec<Event>> = BTreeMap::new();
    while told.values().map(Vec::len).sum::<usize>() < count {
        let event = next(watch).await.unwrap();
        if event.key().is_some() {
            told.entry(event.at().kind).or_default().push(event);
        }
    }
    told
}

async fn watches_tell_everything_once_and_each_kind_in_order(store: &SharedStore) {
    let start = store.list(None).await.unwrap().revisions;
    let (node, pod) = (Key::cluster(Kind::Node, "a"), Key::new(Kind::Pod, "x", "a"));
    let mut live = store.watch(None, &start).await.unwrap();
    let mut live_pods = store.watch(Some(Kind::Pod), &start).await.unwrap();

    let created = store.create(&node, b"1".to_vec()).await.unwrap();
    let created_pod = store.create(&pod, b"p".to_vec()).await.unwrap();
    let updated = store.update(&node, b"2".to_vec(), created).await.unwrap();
    let deleted = store.delete(&node, None).await.unwrap();
    let put = |key: &Key, value: &[u8], revision| {
        Event::Put(super::Entry { key: key.clone(), value: value.to_vec(), revision })
    };
    let pods = vec![put(&pod, b"p", created_pod)];
    let nodes = vec![
        put(&node, b"1", created),
        put(&node, b"2", updated),
        Event::Delete { key: node.clone(), revision: deleted },
    ];
    // From the middle: what was known of then is not told again.
    let mut known = start;
    known.raise(At::new(Kind::Node, created));
    let mut late = store.watch(None, &known).await.unwrap();
    let expected = BTreeMap::from([(Kind::Pod, pods.clone()), (Kind::Node, nodes.clone())]);
    assert_eq!(by_kind(&mut live, 4).await, expected);
    assert_eq!(
        by_kind(&mut late, 3).await,
        BTreeMap::from([(Kind::Pod, pods.clone()), (Kind::Node, nodes[1..].to_vec())])
    );
    assert_eq!(next(&mut live_pods).await.as_ref(), Ok(&pods[0]));
    let gone = store.delete(&pod, None).await.unwrap();
    assert_eq!(next(&mut live_pods).await, Ok(Event::Delete { key: pod, revision: gone }));
}

async fn of_many_writers_one_wins(store: &SharedStore) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 10;
    let key = Key::cluster(Kind::Block, "counter");
    store.create(&key, b"0".to_vec()).await.unwrap();
    let one = |store: SharedStore, key: Key| async move {
        for _ in 0..ROUNDS {
            loop {
                let entry = store.get(&key).await.unwrap().unwrap();
                let count: usize = String::from_utf8(entry.value).unwrap().parse().unwrap();
                match store.update(&key, (count + 1).to_string().into_bytes(), entry.revision).await {
                    Ok(_) => break,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        }
    };
    let tasks: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(one(store.clone(), key.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let entry = store.get(&key).await.unwrap().unwrap();
    assert_eq!(entry.value, (WRITERS * ROUNDS).to_string().into_bytes());
    store.delete(&key, None).await.unwrap();
}

async fn apply_writes_only_what_differs(store: &SharedStore) {
    let mut namespace = Namespace { metadata: ObjectMeta::named("x") };
    let object = Object::from(namespace.clone());
    let Applied::Created(first) = apply(store.as_ref(), &object).await.unwrap() else {
        panic!("not created")
    };
    assert_eq!(apply(store.as_ref(), &object).await, Ok(Applied::Unchanged(first)));
    namespace.metadata.labels.insert("a".into(), "1".into());
    let object = Object::from(namespace);
    assert!(matches!(apply(store.as_ref(), &object).await, Ok(Applied::Updated(second)) if second > first));
    let entry = store.get(&object.key()).await.unwrap().unwrap();
    assert_eq!(entry.object(), Ok(object.clone()));
    store.delete(&object.key(), None).await.unwrap();
}

async fn many_keys_are_listed_whole(store: &SharedStore) {
    const COUNT: usize = 1203;
    let key = |n: usize| Key::new(Kind::Pod, "many", format!("p{n}"));
    for n in 0..COUNT {
        store.create(&key(n), n.to_string().into_bytes()).await.unwrap();
    }
    let listing = store.list(Some(Kind::Pod)).await.unwrap();
    let found: BTreeMap<_, _> = listing.entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
    assert_eq!((found.len(), listing.entries.len()), (COUNT, COUNT));
    assert!((0..COUNT).all(|n| found[&key(n)] == n.to_string().into_bytes()));
    assert!(listing.entries.is_sorted_by_key(|entry| entry.key.to_string()));
}
