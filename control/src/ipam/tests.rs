//! Address management on a real store: alone, in a race, and with the store failing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::object::{EncapsulationMode, IpPoolSpec, Kind};
use crate::store::{self, Embedded};

fn pool(name: &str, cidr: &str, block_size: u8) -> IpPool {
    let spec = IpPoolSpec {
        cidr: cidr.parse().unwrap(),
        block_size: Some(block_size),
        vxlan_mode: EncapsulationMode::Always,
        ipip_mode: EncapsulationMode::Never,
        nat_outgoing: false,
        disabled: false,
        node_selector: None,
        allowed_uses: Vec::new(),
        disable_bgp_export: false,
        assignment_mode: None,
    };
    IpPool { metadata: ObjectMeta::named(name), spec }
}

struct Bench {
    store: SharedStore,
    now_ms: Arc<AtomicU64>,
}

impl Bench {
    async fn new(pools: &[IpPool]) -> Self {
        let store: SharedStore = Arc::new(Embedded::in_memory().unwrap());
        let bench = Self { store, now_ms: Arc::new(AtomicU64::new(1_000_000)) };
        for pool in pools {
            bench.apply(pool.clone()).await;
        }
        bench
    }

    async fn apply(&self, object: impl Into<Object>) {
        store::apply(&*self.store, &object.into()).await.unwrap();
    }

    fn ipam(&self, node: &str) -> Ipam {
        self.ipam_on(Arc::clone(&self.store), node)
    }

    fn ipam_on(&self, store: SharedStore, node: &str) -> Ipam {
        let now_ms = Arc::clone(&self.now_ms);
        Ipam::new(store, node, Duration::from_millis(100), Arc::new(move || now_ms.load(Ordering::SeqCst)))
    }

    fn wait(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    async fn blocks(&self) -> usize {
        self.store.list(Some(Kind::Block)).await.unwrap().entries.len()
    }
}

fn request(container: &str) -> Request {
    Request {
        handle: Handle::attachment(container, "eth0"),
        workload: format!("default/{container}"),
        network: "pods".into(),
        purpose: AllowedUse::Workload,
        addresses: Vec::new(),
    }
}

fn for_these(container: &str, addresses: &[&str]) -> Request {
    Request { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), ..request(container) }
}

#[tokio::test]
async fn a_pod_gets_one_address_of_each_family_and_keeps_it() {
    let bench = Bench::new(&[pool("v4", "10.0.0.0/24", 26), pool("v6", "fd00::/116", 122)]).await;
    let ipam = bench.ipam("n1");
    let first = ipam.assign(&request("a")).await.unwrap();
    assert_eq!(first.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), [true, false]);
    assert_eq!(ipam.assign(&request("a")).await.unwrap(), first);
    assert_eq!(ipam.held_by(&Handle::attachment("a", "eth0")).await.unwrap(), first);
    assert_ne!(ipam.assign(&request("b")).await.unwrap(), first);
    assert_eq!(bench.blocks().await, 2);
    assert_eq!(ipam.release(&request("a").handle).await.unwrap(), first);
    assert_eq!(ipam.release(&request("a").handle).await.unwrap(), Vec::<IpAddr>::new());
}

#[tokio::test]
async fn containers_of_two_nodes_may_have_one_name() {
    let bench = Bench::new(&[pool("v4", "10.0.0.0/24", 26)]).await;
    let (one, two) = (bench.ipam("n1"), bench.ipam("n2"));
    let (first, second) =
        (one.assign(&request("a")).await.unwrap(), two.assign(&request("a")).await.unwrap());
    assert_ne!(first, second);
    assert_eq!(two.release(&request("a").handle).await.unwrap(), second);
    assert_eq!(one.held_by(&request("a").handle).await.unwrap(), first);
}

#[tokio::test]
async fn one_family_full_is_an_error_that_leaves_nothing_of_the_other() {
    let bench = Bench::new(&[pool("small", "10.0.0.0/31", 32), pool("v6", "fd00::/116", 122)]).await;
    let ipam = bench.ipam("n1");
    for container in ["a", "b"] {
        ipam.assign(&request(container)).await.unwrap();
    }
    let error = ipam.assign(&request("c")).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "no free IPv4 address: pool small (10.0.0.0/31): 2 of 2 addresses in use, 2 of 2 blocks taken; this node's \
         blocks have 2 in use and 0 cooling down"
    );
    assert_eq!(ipam.held_by(&request("c").handle).await.unwrap(), Vec::<IpAddr>::new());
}

#[tokio::test]
async fn blocks_are_taken_as_needed_and_go_back_when_idle() {
    let bench = Bench::new(&[pool("v4", "10.0.0.0/29", 31)]).await;
    let (one, two) = (bench.ipam("n1"), bench.ipam("n2"));
    for container in ["a", "b", "c"] {
        one.assign(&request(container)).await.unwrap();
    }
    assert_eq!(bench.blocks().await, 2);
    for container in ["d", "e", "f", "g"] {
        two.assign(&request(container)).await.unwrap();
    }
    assert_eq!(bench.blocks().await, 4);
    assert!(matches!(two.assign(&request("h")).await, Err(IpamError::Full { ipv4: true, .. })));
    one.release(&request("c").handle).await.unwrap();
    assert_eq!(one.give_back_idle().await.unwrap(), []);
    bench.wait(100);
    assert_eq!(two.give_back_idle().await.unwrap(), []);
    assert_eq!(one.give_back_idle().await.unwrap().len(), 1);
    two.assign(&request("h")).await.unwrap();
}

#[tokio::test]
async fn a_disabled_pool_gives_nothing_new_and_keeps_what_it_gave() {
    let mut v4 = pool("v4", "10.0.0.0/24", 26);
    let bench = Bench::new(&[]).await;
    let ipam = bench.ipam("n1");
    let error = ipam.assign(&request("a")).await.unwrap_err().to_string();
    assert_eq!(error, "no IPPool serves Workload: there is none; apply one, or enable one");
    bench.apply(v4.clone()).await;
    let held = ipam.assign(&request("a")).await.unwrap();
    v4.spec.disabled = true;
    bench.apply(v4).await;
    let error = ipam.assign(&request("b")).await.unwrap_err().to_string();
    assert!(error.contains("v4 (10.0.0.0/24, disabled)"), "{error}");
    assert_eq!(ipam.assign(&request("a")).await.unwrap(), held);
}

#[tokio::test]
async fn pools_are_kept_for_their_uses() {
    let mut tunnels = pool("tunnels", "10.1.0.0/24", 26);
    tunnels.spec.allowed_uses = vec![AllowedUse::Tunnel];
    let bench = Bench::new(&[tunnels]).await;
    let ipam = bench.ipam("n1");
    assert!(matches!(ipam.assign(&request("a")).await, Err(IpamError::NoPool { .. })));
    let tunnel = Request { handle: Handle::tunnel("n1"), purpose: AllowedUse::Tunnel, ..request("") };
    assert_eq!(ipam.assign(&tunnel).await.unwrap().len(), 1);
}

#[tokio::test]
async fn addresses_can_be_asked_for() {
    let bench = Bench::new(&[pool("v4", "10.0.0.0/24", 26)]).await;
    let (one, two) = (bench.ipam("n1"), bench.ipam("n2"));
    let held = one.assign(&for_these("a", &["10.0.0.70"])).await.unwrap();
    assert_eq!(held, ["10.0.0.70".parse::<IpAddr>().unwrap()]);
    assert_eq!(one.assign(&for_these("a", &["10.0.0.70"])).await.unwrap(), held);
    for (ipam, request, expected) in [
        (&one, for_these("b", &["10.0.0.70"]), "10.0.0.70 is in use by default/a (a/eth0)"),
        (&one, for_these("b", &["10.0.1.1"]), "10.0.1.1 is in no enabled IPPool: v4 (10.0.0.0/24)"),
        (
            &two,
            for_these("b", &["10.0.0.71"]),
            "10.0.0.71 is in a block of node n1; this node cannot assign it",
        ),
        (&one, for_these("a", &["10.0.0.71"]), "a/eth0 already holds 10.0.0.70"),
        (&one, for_these("b", &["10.0.0.75", "10.0.0.70"]), "10.0.0.70 is in use"),
    ] {
        let error = ipam.assign(&request).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(one.held_by(&request("b").handle).await.unwrap(), Vec::<IpAddr>::new());
}

#[tokio::test]
async fn what_no_valid_attachment_holds_is_found_and_given_back() {
    let bench = Bench::new(&[pool("v4", "10.0.0.0/24", 26)]).await;
    let (one, two) = (bench.ipam("n1"), bench.ipam("n2"));
    for container in ["a", "b", "c"] {
        one.assign(&request(container)).await.unwrap();
    }
    let other = two.assign(&request("d")).await.unwrap();
    let tunnel = Request { handle: Handle::tunnel("n1"), purpose: AllowedUse::Tunnel, ..request("") };
    let own = one.assign(&tunnel).await.unwrap();
    let attached = |key: &crate::object::Key| key.name == "a.eth0";
    assert_eq!(one.leaks(attached, Duration::from_secs(1)).await.unwrap(), []);
    bench.wait(1000);
    let leaked = one.leaks(attached, Duration::from_secs(1)).await.unwrap();
    let holders: BTreeSet<_> = leaked.iter().map(|leak| leak.handle.clone()).collect();
    assert_eq!(holders, ["b", "c"].map(|c| Handle::attachment(c, "eth0")).into());
    let released = one.release_except("pods", |handle| *handle == request("a").handle).await.unwrap();
    assert_eq!(released, leaked.iter().map(|leak| leak.address).collect::<Vec<_>>());
    assert_eq!(two.held_by(&request("d").handle).await.unwrap(), other);
    assert_eq!(one.held_by(&tunnel.handle).await.unwrap(), own);
}

#[tokio::test]
async fn a_block_that_makes_no_sense_is_left_alone() {
    let bench = Bench::new(&[pool("v4", "10.0.0.0/27", 28)]).await;
    let ipam = bench.ipam("n1");
    let cidr: IpNet = "10.0.0.0/28".parse().unwrap();
    let nonsense =
        br#"{"apiVersion":"vswitch/v1","kind":"Block","metadata":{"name":"10.0.0.0-28"},"spec":{"cidr":7}}"#;
    bench.store.create(&Block::key_of(cidr), nonsense.to_vec()).await.unwrap();
    for container in 0..16 {
        let held = ipam.assign(&request(&container.to_string())).await.unwrap();
        assert!(!cidr.contains(&held[0]), "{held:?}");
    }
    assert!(matches!(ipam.assign(&request("more")).await, Err(IpamError::Full { .. })));
}

/// Everybody races for one small pool while one call in twelve fails, half of those after the change was made. What
/// the racers believe to hold at the end must be exactly what the store says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_given_twice_and_none_is_lost() {
    for seed in 0..3_u64 {
        let bench = Bench::new(&[pool("v4", "10.0.0.0/27", 30), pool("v6", "fd00::/123", 126)]).await;
        let racers = (0..8_u64).map(|racer| {
            let faulty: SharedStore = Arc::new(Faulty::new(Arc::clone(&bench.store), 12, seed * 100 + racer));
            // Two racers to a node: they also meet in its blocks, as two agents would in an upgrade.
            let ipam = bench.ipam_on(faulty, &format!("n{}", racer / 2));
            let now_ms = Arc::clone(&bench.now_ms);
            tokio::spawn(race(ipam, now_ms, racer))
        });
        let mut believed: BTreeMap<IpAddr, Handle> = BTreeMap::new();
        for held in futures::future::join_all(racers).await {
            for (address, handle) in held.unwrap() {
                let twice = believed.insert(address, handle);
                assert_eq!(twice, None, "{address} was given twice");
            }
        }
        let view = View::read(&*bench.store).await.unwrap();
        let kept =
            view.blocks.iter().flat_map(|b| b.content.assigned()).map(|(a, who)| (a, who.handle.clone()));
        assert_eq!(kept.collect::<BTreeMap<_, _>>(), believed);
        assert!(!believed.is_empty());
    }
}

async fn race(ipam: Ipam, now_ms: Arc<AtomicU64>, racer: u64) -> Vec<(IpAddr, Handle)> {
    let mut held = BTreeMap::new();
    for round in 0..24_u64 {
        let request = request(&format!("r{racer}-{}", round % 5));
        let addresses = loop {
            match ipam.assign(&request).await {
                Ok(addresses) => break addresses,
                Err(IpamError::Store(_) | IpamError::Contended { .. }) => {}
                // Its half of an address, should the undoing have failed too, must go: that is the contract.
                Err(IpamError::Full { .. }) => break Vec::new(),
                Err(other) => panic!("{other}"),
            }
        };
        held.insert(request.handle.clone(), addresses);
        if round % 3 != 0 || held[&request.handle].is_empty() {
            while ipam.release(&request.handle).await.is_err() {}
            held.remove(&request.handle);
        }
        now_ms.fetch_add(20, Ordering::SeqCst);
        // An error means that it did not happen now; some later round gives them back.
        drop(ipam.give_back_idle().await);
    }
    held.into_iter()
        .flat_map(|(handle, addresses)| addresses.into_iter().map(move |a| (a, handle.clone())))
        .collect()
}
