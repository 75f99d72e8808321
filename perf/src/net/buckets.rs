//! Times as bpf/buckets.h counts them.

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use hdrhistogram::Histogram;

use super::xdp;
use crate::{Error, Result};

/// As in the programs: buckets in each power of two, and all.
const FINE: u32 = 64;
pub(crate) const BUCKETS: u32 = 2048;

/// What is counted of all cores, in nanoseconds; within 0.8 % of what it was.
pub(super) fn read(map: &PerCpuArray<MapData, u64>, what: &str) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new(3).map_err(|error| xdp::failed(what, &error))?;
    for bucket in 0..BUCKETS {
        let cores = map.get(&bucket, 0).map_err(|error| xdp::failed(what, &error))?;
        let count = cores.iter().sum();
        if count > 0 {
            histogram.record_n(middle_of(bucket), count).map_err(|error| xdp::failed(what, &error))?;
        }
    }
    Ok(histogram)
}

/// Forgets what is counted.
pub(super) fn clear(map: &mut PerCpuArray<MapData, u64>, what: &str) -> Result<()> {
    let cores = aya::util::nr_cpus().map_err(|(what, error)| Error::setup(what, error))?;
    for bucket in 0..BUCKETS {
        let zeros = PerCpuValues::try_from(vec![0; cores]).map_err(|error| xdp::failed(what, &error))?;
        map.set(bucket, zeros, 0).map_err(|error| xdp::failed(what, &error))?;
    }
    Ok(())
}

/// The shortest time of a bucket, and how many there are in it.
fn range_of(bucket: u32) -> (u64, u64) {
    if bucket < FINE {
        return (u64::from(bucket), 1);
    }
    let (power, fine) = (bucket / FINE + 5, bucket % FINE);
    let width = 1_u64 << (power - 6);
    (u64::from(FINE + fine) * width, width)
}

/// The time in the middle of a bucket.
fn middle_of(bucket: u32) -> u64 {
    let (shortest, width) = range_of(bucket);
    shortest + width / 2
}

/// The longest time that is counted in a bucket: at most 1.6 % more than any of it.
pub(crate) fn longest_of(bucket: u32) -> u64 {
    let (shortest, width) = range_of(bucket);
    shortest + width - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_have_their_middles() {
        assert_eq!([0, 63, 64, 127, 128, 129].map(middle_of), [0, 63, 64, 127, 129, 131]);
        for bucket in FINE..BUCKETS - 1 {
            let step = middle_of(bucket + 1) - middle_of(bucket);
            assert!(step as f64 / middle_of(bucket) as f64 <= 0.016, "{bucket}");
            assert_eq!(longest_of(bucket) + 1, range_of(bucket + 1).0, "{bucket}");
        }
    }
}
