//! The index of the flow table: buckets of one cache line, each entry a tag and the number of a record.
//!
//! A record is in its first bucket, or, when that was full, in its second. A bucket counts those that had to go to their
//! second, so that a search that finds nothing looks at one line only, as long as nothing went (Cuckoo++, arXiv
//! 1712.09624). There are two entries for every flow, so a bucket is full seldom, and when both are one move of another
//! entry makes room.

/// Entries of a bucket.
pub(super) const WAYS: usize = 8;
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

#[derive(Debug, Clone)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
    mask: usize,
}

impl Index {
    /// An index for at most `capacity` records.
    pub(super) fn new(capacity: usize) -> Self {
        let count = (capacity * 2).div_ceil(WAYS).next_power_of_two().max(2);
        Self { buckets: vec![Bucket::default(); count].into_boxed_slice(), mask: count - 1 }
    }

    #[inline]
    fn first(&self, hash: u64) -> usize {
        hash as usize & self.mask
    }

    /// Never the first: the distance is odd.
    #[inline]
    fn second(&self, hash: u64) -> usize {
        (hash as usize ^ ((hash >> 32) as usize | 1)) & self.mask
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        // The mask keeps the number below the length; indexing by it costs one comparison.
        &self.buckets[at & self.mask]
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

    /// Reads the first bucket and gives the record whose tag fits, to be compared later: what a batch does before it
    /// looks at any record.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<u32> {
        let bucket = self.bucket(self.first(hash));
        bucket.records.get(first_way(bucket.matches(tag(hash)))).copied()
    }

    /// Adds a record. `hash_of` gives the hash of any other. False when neither bucket has room, nor could be given any.
    pub(super) fn insert(&mut self, hash: u64, record: u32, hash_of: impl Fn(u32) -> u64) -> bool {
        let (first, second) = (self.first(hash), self.second(hash));
        if self.put(first, hash, record) {
            return true;
        }
        if !self.put(second, hash, record) {
            let room = [first, second].into_iter().find(|at| self.move_one(*at, &hash_of));
            match room {
                Some(at) if at == first => return self.put(first, hash, record),
                Some(_) if self.put(second, hash, record) => {}
                _ => return false,
            }
        }
        self.buckets[first].moved += 1;
        true
    }

    /// Moves one entry of a full bucket to its other bucket.
    fn move_one(&mut self, from: usize, hash_of: impl Fn(u32) -> u64) -> bool {
        for way in 0..WAYS {
            let record = self.buckets[from].records[way];
            let hash = hash_of(record);
            let (first, second) = (self.first(hash), self.second(hash));
            let to = if from == first { second } else { first };
            if self.put(to, hash, record) {
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
        let bucket = &mut self.buckets[at & self.mask];
        let way = first_way(bucket.matches(FREE));
        let Some(number) = bucket.records.get_mut(way) else { return false };
        *number = record;
        bucket.tags[way % 2] |= u64::from(tag(hash)) << (way / 2 * 16);
        true
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, hash: u64, record: u32) {
        let (first, second) = (self.first(hash), self.second(hash));
        if !self.buckets[first].take(record) && self.buckets[second].take(record) {
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

    fn take(&mut self, record: u32) -> bool {
        let mut held = !self.matches(FREE) & (LOW | LOW << 1);
        while held != 0 {
            let way = first_way(held);
            if self.records[way % WAYS] == record {
                self.free(way);
                return true;
            }
            held &= held - 1;
        }
        false
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

/// 16 bits of the hash that choose no bucket of a table of less than 2^48 buckets, and are not [`FREE`].
#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}
