//! Interarrival jitter of RTP: RFC 3550, sections 6.4.1 and A.8.
//!
//! D(i, j) = (arrival of j - sending of j) - (arrival of i - sending of i), in the order of arrival, and
//! J(i) = J(i - 1) + (|D(i - 1, i)| - J(i - 1)) / 16.

/// The running estimate, in the unit of the times it is given.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Jitter {
    transit: Option<f64>,
    value: f64,
    highest: f64,
}

impl Jitter {
    /// A packet that left at `sent` arrived at `arrived`. Both clocks may start anywhere: only differences count.
    pub fn observe(&mut self, sent: f64, arrived: f64) {
        let transit = arrived - sent;
        if let Some(before) = self.transit.replace(transit) {
            self.value += ((transit - before).abs() - self.value) / 16.0;
            self.highest = self.highest.max(self.value);
        }
    }

    /// Now. 0 before the second packet.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The highest it ever was.
    #[must_use]
    pub fn highest(&self) -> f64 {
        self.highest
    }
}

/// The same in the integers of RFC 3550, A.8: what an RTCP receiver report carries, in timestamp units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RtpJitter {
    transit: Option<u32>,
    /// 16 times the jitter, so that no rounding is lost from packet to packet.
    scaled: u32,
}

impl RtpJitter {
    /// A packet with this RTP timestamp arrived at this time in the same units. Both wrap at 32 bits.
    pub fn observe(&mut self, timestamp: u32, arrived: u32) {
        let transit = arrived.wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let change = (transit.wrapping_sub(before) as i32).unsigned_abs();
            self.scaled = self.scaled.wrapping_add(change).wrapping_sub((self.scaled.wrapping_add(8)) >> 4);
        }
    }

    /// The field `jitter` of a receiver report.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.scaled >> 4
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_late_packet_decays_as_the_rfc_says() {
        let mut jitter = Jitter::default();
        // 20 ms apart; the third is 16 ms late.
        for (sent, arrived) in [(0.0, 5.0), (20.0, 25.0), (40.0, 61.0)] {
            jitter.observe(sent, arrived);
        }
        assert_eq!(jitter.value(), 1.0);
        // Back in time: the transit changes by 16 ms once more, then not at all.
        jitter.observe(60.0, 65.0);
        assert_eq!(jitter.value(), 1.0 + 15.0 / 16.0);
        jitter.observe(80.0, 85.0);
        assert_eq!(jitter.value(), (1.0 + 15.0 / 16.0) * 15.0 / 16.0);
        assert_eq!(jitter.highest(), 1.0 + 15.0 / 16.0);
    }

    #[test]
    fn an_even_stream_has_none() {
        let (mut float, mut integer) = (Jitter::default(), RtpJitter::default());
        for packet in 0..100_u32 {
            float.observe(f64::from(packet) * 20.0, f64::from(packet) * 20.0 + 3.0);
            // The timestamps wrap on the way.
            integer.observe((packet * 160).wrapping_sub(4000), packet * 160);
        }
        assert_eq!((float.value(), integer.value()), (0.0, 0));
    }

    #[test]
    fn the_integers_of_the_rfc_by_hand() {
        // A.8: jitter += d - ((jitter + 8) >> 4), reported as jitter >> 4.
        let mut jitter = RtpJitter::default();
        let mut values = Vec::new();
        for (timestamp, arrived) in [(0, 1000), (160, 1240), (320, 1320), (480, 1480)] {
            jitter.observe(timestamp, arrived);
            values.push(jitter.scaled);
        }
        // d: none, 80, 80, 0. 80 - 0; 80 + 80 - (88 >> 4 = 5); 155 + 0 - (163 >> 4 = 10).
        assert_eq!(values, [0, 80, 155, 145]);
        assert_eq!(jitter.value(), 9);
    }

    proptest! {
        /// Float and integer forms agree to the rounding of one unit (the integer form rounds each decay by up to half).
        #[test]
        fn both_forms_agree(delays in proptest::collection::vec(0_u32..4000, 2..300)) {
            let (mut float, mut integer) = (Jitter::default(), RtpJitter::default());
            for (packet, delay) in delays.iter().enumerate() {
                let sent = packet as u32 * 160;
                float.observe(f64::from(sent), f64::from(sent + delay));
                integer.observe(sent, sent + delay);
            }
            prop_assert!((float.value() - f64::from(integer.value())).abs() < 2.0);
        }

        /// Against the sum it stands for, written out: J = sum of |D| * (15/16)^age / 16.
        #[test]
        fn it_is_an_exponential_mean(delays in proptest::collection::vec(0.0..100.0, 2..50)) {
            let mut jitter = Jitter::default();
            for (packet, delay) in delays.iter().enumerate() {
                jitter.observe(packet as f64 * 20.0, packet as f64 * 20.0 + delay);
            }
            let changes: Vec<f64> = delays.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
            let oracle: f64 = changes.iter().rev().enumerate()
                .map(|(age, change)| change / 16.0 * (15.0_f64 / 16.0).powi(age as i32)).sum();
            prop_assert!((jitter.value() - oracle).abs() < 1e-9);
        }
    }
}
