//! The rules of each shape.

use vswitch_model::{Action, IdentityId, SetId};

use super::PODS;
use super::make::Maker;

/// See [`super::Shape::Policies`].
pub(super) fn policies(maker: &mut Maker, count: usize) {
    const PORTS: usize = 64;
    let peers = (count / 10).max(8);
    let ids: Vec<IdentityId> = (0..peers).map(|number| maker.peer(number)).collect();
    let of = |set: usize| [0, 1, 7].map(|step| (set + step) % peers);
    let sets: Vec<SetId> =
        (0..peers).map(|set| maker.set_of(of(set).map(|number| ids[number]).to_vec())).collect();
    for n in 0..count {
        let (policy, set, port) = (n / 10, n % peers, 8000 + (n % PORTS) as u16 * 10);
        maker.rule(Action::Allow, sets[set], &[(port, port)]);
        let pods = [0, 7, 31, 57].map(|step| (policy + step) % PODS);
        let peer = maker.address(of(set)[n % 3]);
        maker.ask(pods[n % 4], peer, port);
        if maker.is_full() || n + 1 == count {
            maker.policy(pods);
        }
    }
}

/// See [`super::Shape::Ranges`].
pub(super) fn ranges(maker: &mut Maker, count: usize) {
    const GROUPS: usize = 16;
    const MEMBERS: usize = 4;
    let ids: Vec<IdentityId> = (0..GROUPS * MEMBERS).map(|number| maker.peer(number)).collect();
    let sets: Vec<SetId> = ids.chunks(MEMBERS).map(|members| maker.set_of(members.to_vec())).collect();
    for n in 0..count {
        let (group, first) = (n % GROUPS, 64 + (n / GROUPS) as u16 * 10);
        maker.rule(Action::Allow, sets[group], &[(first, first + 7)]);
        let peer = maker.address(group * MEMBERS + n / GROUPS % MEMBERS);
        maker.ask(n % PODS, peer, first + n as u16 % 8);
    }
    maker.policy(0..PODS);
}

/// See [`super::Shape::Overlaps`].
pub(super) fn overlaps(maker: &mut Maker, count: usize) {
    const PEERS: usize = 32;
    const MEMBERS: usize = 8;
    const QUARTERS: usize = 4;
    let ids: Vec<IdentityId> = (0..PEERS).map(|number| maker.peer(number)).collect();
    let groups: Vec<Vec<usize>> = (0..PEERS)
        .map(|_| (0..MEMBERS).map(|_| maker.numbers.below(PEERS as u64) as usize).collect())
        .collect();
    let sets: Vec<SetId> =
        groups.iter().map(|group| maker.set_of(group.iter().map(|number| ids[*number]).collect())).collect();
    for n in 0..count {
        let mut draw = |end: usize| maker.numbers.below(end as u64) as usize;
        let (group, policy) = (draw(PEERS), n / 10);
        let ranges = [(); 3].map(|()| {
            let (first, wide) = (draw(1 << 16) as u16, draw(64) as u16);
            (first, first.saturating_add(wide))
        });
        let peer = groups[group][draw(MEMBERS)];
        let (first, last) = ranges[draw(3)];
        let port = first + draw(usize::from(last - first) + 1) as u16;
        let pod = policy % QUARTERS + draw(PODS / QUARTERS) * QUARTERS;
        let action = if n % 4 == 3 { Action::Deny } else { Action::Allow };
        maker.rule(action, sets[group], &ranges);
        let peer = maker.address(peer);
        maker.ask(pod, peer, port);
        if maker.is_full() || n + 1 == count {
            maker.policy((policy % QUARTERS..PODS).step_by(QUARTERS));
        }
    }
}

/// See [`super::Shape::Blocks`].
pub(super) fn blocks(maker: &mut Maker, count: usize) {
    const PORTS: usize = 60_000;
    for (n, net) in maker.cidrs(count).into_iter().enumerate() {
        let id = maker.identity(n);
        maker.cidr(id, net);
        let set = maker.set_of(vec![id]);
        let port = 1024 + (n % PORTS) as u16;
        maker.rule(Action::Allow, set, &[(port, port)]);
        let peer = maker.within(&net);
        maker.ask(n % PODS, peer, port);
        if maker.is_full() || n + 1 == count {
            maker.policy(0..PODS);
        }
    }
}

/// See [`super::Shape::List`].
pub(super) fn list(maker: &mut Maker, count: usize) {
    const PORT: u16 = 5000;
    let id = maker.identity(0);
    let set = maker.set_of(vec![id]);
    maker.rule(Action::Allow, set, &[(PORT, PORT)]);
    maker.policy(0..PODS);
    for (n, net) in maker.cidrs(count).into_iter().enumerate() {
        maker.cidr(id, net);
        let peer = maker.within(&net);
        maker.ask(n % PODS, peer, PORT);
    }
}
