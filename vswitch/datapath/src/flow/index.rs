//! The index of the flow table: buckets of one cache line, each entry a tag and the number of a record.
//!
//! A record is in its first bucket, or, when that was full, in its second. A bucket counts those that had to go to their
//! second, so that a search that finds nothing looks at one line only, as long as nothing went (Cuckoo++, arXiv
//! 1712.09624). There are two entries for every flow, so a bucket is full seldom, and when both are one move of another
//! entry makes room.

/// Entries of a bucket.
pub(super) const WAYS: usize = 8;
const FREE: u16 = 0;

/// One cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Bucket {
    /// [`FREE`], or 16 bits of the hash.
    tags: [u16; WAYS],
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
        let matches = bucket.matches(tag(hash));
        bucket.records.get(matches.trailing_zeros() as usize).copied()
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
                self.buckets[from].tags[way] = FREE;
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

    fn put(&mut self, at: usize, hash: u64, record: u32) -> bool {
        let bucket = &mut self.buckets[at];
        let Some(way) = bucket.tags.iter().position(|tag| *tag == FREE) else { return false };
        bucket.tags[way] = tag(hash);
        bucket.records[way] = record;
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
        let used = self.buckets.iter().flat_map(|bucket| bucket.tags).filter(|tag| *tag != FREE).count();
        (used, self.buckets.iter().map(|bucket| usize::from(bucket.moved)).sum())
    }
}

impl Bucket {
    /// One bit for each entry with this tag.
    #[inline]
    fn matches(&self, tag: u16) -> u32 {
        let mut matches = 0;
        for (way, other) in self.tags.iter().enumerate() {
            matches |= u32::from(*other == tag) << way;
        }
        matches
    }

    #[inline]
    fn find(&self, tag: u16, same: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut matches = self.matches(tag);
        while matches != 0 {
            let record = self.records[matches.trailing_zeros() as usize & (WAYS - 1)];
            if same(record) {
                return Some(record);
            }
            matches &= matches - 1;
        }
        None
    }

    fn take(&mut self, record: u32) -> bool {
        let held = |way: &usize| self.tags[*way] != FREE && self.records[*way] == record;
        let Some(way) = (0..WAYS).find(held) else { return false };
        self.tags[way] = FREE;
        true
    }
}

/// 16 bits of the hash that choose no bucket of a table of less than 2^48 buckets, and are not [`FREE`].
#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}
