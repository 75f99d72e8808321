//! Port classes: protocols and ports that the same port matches name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vswitch_model::PortMatch;

/// IP protocols whose ports are compared: TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// From a protocol and a port to a class. Class 0 is what no match names.
#[derive(Debug, Clone)]
pub(super) struct PortClasses {
    slots: Box<[Slot; 256]>,
    /// Runs of one class (protocols that are named as a whole, or not at all) or of 65536.
    classes: Vec<u16>,
}

/// Where a protocol's classes are: `classes[base + (port & mask)]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    base: u32,
    mask: u16,
}

impl Default for PortClasses {
    fn default() -> Self {
        Self { slots: Box::new([Slot::default(); 256]), classes: vec![0] }
    }
}

impl PortClasses {
    #[inline]
    pub(super) fn class(&self, protocol: u8, port: u16) -> u16 {
        let slot = self.slots[usize::from(protocol)];
        self.classes.get(slot.base as usize + usize::from(port & slot.mask)).copied().unwrap_or(0)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<[Slot; 256]>() + self.classes.capacity() * 2
    }

    /// Where these classes are, laid down only when no other protocol has the same.
    fn lay_down(&mut self, classes: &[u16], known: &mut HashMap<Vec<u16>, u32>) -> Slot {
        let mask = if classes.len() == 1 { 0 } else { u16::MAX };
        let base = *known.entry(classes.to_vec()).or_insert_with(|| {
            self.classes.extend_from_slice(classes);
            (self.classes.len() - classes.len()) as u32
        });
        Slot { base, mask }
    }
}

/// Number of a group: rules that name the same protocols and ports.
pub(super) type Group = usize;

/// The classes, and which of them each group matches.
pub(super) struct Partition {
    pub(super) classes: PortClasses,
    /// How many classes there are.
    pub(super) count: usize,
    /// By group: the classes it matches.
    pub(super) groups: Vec<Vec<u16>>,
}

/// Most classes: they are numbered with 16 bits.
const CLASSES_MAX: usize = 1 << 16;
/// Most pairs of a stretch of ports and a group that names it: what bounds the time and the memory of compiling.
const NAMINGS_MAX: usize = 1 << 24;

/// What there are too many of.
pub(super) struct TooMany {
    pub(super) what: &'static str,
    pub(super) takes: usize,
    pub(super) most: usize,
}

/// Gives classes to what `groups` tell apart.
pub(super) fn partition(groups: &[&[PortMatch]]) -> Result<Partition, TooMany> {
    let mut classes = ClassNumbers { numbers: BTreeMap::from([(Vec::new(), 0)]), namings: 0 };
    let mut tables = PortClasses::default();
    let mut known = HashMap::from([(vec![0], 0)]);
    let mut by_protocol: BTreeMap<u8, Vec<(Group, PortMatch)>> = BTreeMap::new();
    for (group, matches) in groups.iter().enumerate() {
        for range in *matches {
            by_protocol.entry(range.protocol).or_default().push((group, *range));
        }
    }
    for (protocol, matches) in by_protocol {
        let list = if WITH_PORTS.contains(&protocol) {
            sweep(&matches, &mut classes)?
        } else {
            let named: BTreeSet<Group> = matches.iter().map(|(group, _)| *group).collect();
            vec![classes.of(named.into_iter().collect())?]
        };
        tables.slots[usize::from(protocol)] = tables.lay_down(&list, &mut known);
    }
    let mut of_group = vec![Vec::new(); groups.len()];
    for (named_by, class) in &classes.numbers {
        for group in named_by {
            of_group[*group].push(*class);
        }
    }
    Ok(Partition { classes: tables, count: classes.numbers.len(), groups: of_group })
}

/// Number of a class by the groups that name it.
struct ClassNumbers {
    numbers: BTreeMap<Vec<Group>, u16>,
    /// Pairs of a stretch of ports and a group so far.
    namings: usize,
}

impl ClassNumbers {
    fn of(&mut self, groups: Vec<Group>) -> Result<u16, TooMany> {
        self.namings += groups.len();
        if self.namings > NAMINGS_MAX {
            let what = "pairs of a stretch of ports and rules that name it";
            return Err(TooMany { what, takes: self.namings, most: NAMINGS_MAX });
        }
        let next = self.numbers.len();
        let too_many = |_| TooMany { what: "classes of ports", takes: next + 1, most: CLASSES_MAX };
        match self.numbers.get(&groups) {
            Some(class) => Ok(*class),
            None => {
                let class = u16::try_from(next).map_err(too_many)?;
                self.numbers.insert(groups, class);
                Ok(class)
            }
        }
    }
}

/// The classes of all 65536 ports of one protocol; a single one when they are all the same.
fn sweep(matches: &[(Group, PortMatch)], classes: &mut ClassNumbers) -> Result<Vec<u16>, TooMany> {
    // Where a match begins (true) and where it has ended.
    let mut edges: BTreeMap<u32, Vec<(Group, bool)>> = BTreeMap::new();
    for (group, range) in matches {
        edges.entry(u32::from(range.first)).or_default().push((*group, true));
        edges.entry(u32::from(range.last) + 1).or_default().push((*group, false));
    }
    let mut list = vec![0; 1 << 16];
    let mut open: BTreeMap<Group, u32> = BTreeMap::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((first, changes)) = edges.next() {
        for (group, begins) in changes {
            let count = open.entry(group).or_default();
            *count = if begins { *count + 1 } else { count.wrapping_sub(1) };
        }
        // A group may end and begin at one port: only now the counts are right.
        open.retain(|_, count| *count != 0);
        let end = edges.peek().map_or(1 << 16, |(next, _)| *next);
        let class = classes.of(open.keys().copied().collect())?;
        list[first.min(1 << 16) as usize..end as usize].fill(class);
    }
    if list.iter().all(|class| *class == list[0]) {
        list.truncate(1);
    }
    Ok(list)
}
