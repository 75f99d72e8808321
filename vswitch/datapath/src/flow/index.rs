//! The index of the flow table: buckets of one cache line, each entry a tag and the number of a record.
//!
//! A record is in its first bucket, or, when that was full, in its second. A bucket counts those that had to go to their
//! second, so that a search that finds nothing looks at one line only, as long as nothing went (Cuckoo++, arXiv
//! 1712.09624). There are eight entries for seven flows: when both buckets are full others move out of the way, each to
//! its own other bucket (cuckoo hashing), which two moves at most find room for at this load.

/// Entries of a bucket.
pub(super) const WAYS: usize = 8;
/// Flows that a bucket is there for. Buckets of 8 of which each entry may be in two take 97 in 100.
const FLOWS_EACH: usize = 7;
/// Moves that make room for others to move.
const DEPTH: u32 = 1;
const FREE: u16 = 0;
/// The lowest bit of each tag of a word.
const LOW: u64 = 0x0001_0001_0001_0001;
/// All but the highest bit of each.
const LOWER: u64 = 0x7fff * LOW;

/// One cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Bucket {
    /// [`FREE`], or 16 bits of the hash: four to a word, way `w` in word `w % 2` at bit `w / 2 * 16`. Words, so that
    /// all are compared in a few instructions of every processor.
    tags: [u64; 2],
    /// Numbers of records.
    records: [u32; WAYS],
    /// How many records are in their second bucket because this one was full.
    moved: u16,
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    bucket: usize,
    way: usize,
    /// The first bucket of its hash.
    first: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
}

impl Index {
    /// An index for at most `capacity` records.
    pub(super) fn new(capacity: usize) -> Self {
        // One more: of a few buckets one may well be the choice of most.
        let count = capacity.div_ceil(FLOWS_EACH) + 1;
        Self { buckets: vec![Bucket::default(); count.max(2)].into_boxed_slice() }
    }

    /// From bits 16 to 47 of the hash; the upper ones count.
    #[inline]
    fn first(&self, hash: u64) -> usize {
        below((hash >> 16) as u32, self.buckets.len())
    }

    /// Never the first. From the lower 32 bits; the lowest count.
    #[inline]
    fn second(&self, hash: u64) -> usize {
        let count = self.buckets.len();
        let at = self.first(hash) + 1 + below((hash as u32).swap_bytes(), count - 1);
        if at < count { at } else { at - count }
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        &self.buckets[at]
    }

    /// The first record whose tag fits and for which `same` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let first = self.bucket(self.first(hash));
        if let Some(record) = first.find(tag, &mut same) {
            return Some(record);
        }
        if first.moved == 0 {
            return None;
        }
        self.bucket(self.second(hash)).find(tag, &mut same)
    }

    /// The first bucket of a hash.
    #[inline]
    pub(super) fn first_bucket(&self, hash: u64) -> &Bucket {
        self.bucket(self.first(hash))
    }

    /// Reads the first bucket and gives the record whose tag fits, to be compared later: what a batch does before it
    /// looks at any record.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<u32> {
        let bucket = self.first_bucket(hash);
        bucket.records.get(first_way(bucket.matches(tag(hash)))).copied()
    }

    /// Adds a record. `hash_of` gives the hash of any other. False when neither bucket has room, nor could be given any.
    pub(super) fn insert(&mut self, hash: u64, record: u32, hash_of: impl Fn(u32) -> u64) -> bool {
        let (first, second) = (self.first(hash), self.second(hash));
        if self.put(first, hash, record) {
            return true;
        }
        if !self.put(second, hash, record) {
            let ways = (0..=DEPTH).flat_map(|depth| [(first, depth), (second, depth)]);
            let room = ways.into_iter().find(|(at, depth)| self.make_way(*at, *depth, &hash_of));
            let Some((at, _)) = room else { return false };
            if !self.put(at, hash, record) {
                return false;
            }
            if at == first {
                return true;
            }
        }
        self.buckets[first].moved += 1;
        true
    }

    /// Moves one entry of a full bucket to its other bucket, where others move first if that is full, too: `depth` times.
    #[cold]
    fn make_way(&mut self, from: usize, depth: u32, hash_of: &impl Fn(u32) -> u64) -> bool {
        for way in 0..WAYS {
            let record = self.buckets[from].records[way];
            let hash = hash_of(record);
            let (first, second) = (self.first(hash), self.second(hash));
            let to = if from == first { second } else { first };
            let moved = self.put(to, hash, record)
                || depth > 0 && self.make_way(to, depth - 1, hash_of) && self.put(to, hash, record);
            if moved {
                // It is where it was: what moved on from `to` made no room for it before.
                self.buckets[from].free(way);
                if to == second {
                    self.buckets[first].moved += 1;
                } else {
                    self.buckets[first].moved -= 1;
                }
                return true;
            }
        }
        false
    }

    #[inline]
    fn put(&mut self, at: usize, hash: u64, record: u32) -> bool {
        let bucket = &mut self.buckets[at];
        let way = first_way(bucket.matches(FREE));
        let Some(number) = bucket.records.get_mut(way) else { return false };
        *number = record;
        bucket.tags[way % 2] |= u64::from(tag(hash)) << (way / 2 * 16);
        true
    }

    /// Where a record is; of no meaning once another was added.
    #[inline]
    pub(super) fn place(&self, hash: u64, record: u32) -> Option<Place> {
        let (first, tag) = (self.first(hash), tag(hash));
        if let Some(way) = self.bucket(first).way_of(tag, record) {
            return Some(Place { bucket: first, way, first });
        }
        let bucket = self.second(hash);
        self.bucket(bucket).way_of(tag, record).map(|way| Place { bucket, way, first })
    }

    /// Takes out what is at a place.
    #[inline]
    pub(super) fn free(&mut self, Place { bucket, way, first }: Place) {
        self.buckets[bucket].free(way);
        if bucket != first {
            self.buckets[first].moved -= 1;
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// Entries in use, and how many of them are in their second bucket: for tests.
    #[cfg(test)]
    pub(super) fn occupancy(&self) -> (usize, usize) {
        let used = |bucket: &Bucket| WAYS - bucket.matches(FREE).count_ones() as usize;
        let used = self.buckets.iter().map(used).sum();
        (used, self.buckets.iter().map(|bucket| usize::from(bucket.moved)).sum())
    }
}

impl Bucket {
    /// One bit for each entry with this tag: of way `w` bit `w % 2 + w / 2 * 16`.
    #[inline]
    fn matches(&self, tag: u16) -> u64 {
        let [even, odd] = self.tags.map(|tags| {
            let differs = tags ^ (u64::from(tag) * LOW);
            // The highest bit of each: set by the sum when a lower one is. No sum carries into the next tag.
            !(((differs & LOWER) + LOWER) | differs | LOWER)
        });
        even >> 15 | odd >> 14
    }

    #[inline]
    fn find(&self, tag: u16, same: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut matches = self.matches(tag);
        while matches != 0 {
            let record = self.records[first_way(matches) % WAYS];
            if same(record) {
                return Some(record);
            }
            matches &= matches - 1;
        }
        None
    }

    /// The way of a record.
    #[inline]
    fn way_of(&self, tag: u16, record: u32) -> Option<usize> {
        let mut matches = self.matches(tag);
        while matches != 0 {
            let way = first_way(matches) % WAYS;
            if self.records[way] == record {
                return Some(way);
            }
            matches &= matches - 1;
        }
        None
    }

    fn free(&mut self, way: usize) {
        self.tags[way % 2] &= !(0xffff << (way / 2 * 16));
    }
}

/// The way of the lowest of the bits of [`Bucket::matches`]; beyond [`WAYS`] when there is none.
#[inline]
fn first_way(matches: u64) -> usize {
    let bit = matches.trailing_zeros() as usize;
    bit / 16 * 2 + bit % 16
}

/// 16 bits of the hash that choose no bucket, and are not [`FREE`].
#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}

/// A number below `count` from a random one: the upper bits of their product.
#[inline]
fn below(random: u32, count: usize) -> usize {
    ((u64::from(random) * count as u64) >> 32) as usize
}
