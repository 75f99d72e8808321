//! How a call sounds: the E-model of ITU-T G.107 (06/2015), narrowband, with its default values but for what a network
//! changes: delay, loss and its burstiness. Codecs after G.113, appendix I.

/// What of a codec the model needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codec {
    /// Equipment impairment without loss, Ie.
    pub impairment: f64,
    /// Packet-loss robustness, Bpl.
    pub robustness: f64,
}

impl Codec {
    /// G.711 as it is: a lost packet is heard.
    pub const G711: Self = Self { impairment: 0.0, robustness: 4.3 };
    /// G.711 with the packet-loss concealment of its appendix I, which every softphone has.
    pub const G711_PLC: Self = Self { impairment: 0.0, robustness: 25.1 };
}

/// What the network did to a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// Mouth to ear, one way, in milliseconds: network, packetisation (20 ms for the usual frames) and jitter buffer.
    pub delay_ms: f64,
    /// Part of the packets that were lost or came too late, 0 to 1.
    pub loss: f64,
    /// Mean length of runs of lost packets over what random loss would give (G.107's BurstR): 1 for random loss.
    pub burst_ratio: f64,
}

/// Mean length of runs of lost packets, in packets, over what it would be if each packet were lost by itself, 1 / (1 - loss).
/// 1 when nothing was lost or only singly so rarely that it is less.
#[must_use]
pub fn burst_ratio(lost: u64, runs: u64, sent: u64) -> f64 {
    if runs == 0 || sent == 0 {
        return 1.0;
    }
    let loss = lost as f64 / sent as f64;
    (lost as f64 / runs as f64 * (1.0 - loss)).max(1.0)
}

/// The transmission rating factor R: 93.2 for a perfect network, 0 for one that cannot be used.
#[must_use]
pub fn rating(codec: Codec, call: Call) -> f64 {
    let noise = noise();
    let basic = 15.0 - 1.5 * (SLR + noise);
    let rating = basic
        - simultaneous(basic, noise, call.delay_ms)
        - delay(basic, noise, call.delay_ms)
        - equipment(codec, call);
    rating.clamp(0.0, 100.0)
}

/// The mean opinion score a conversation of rating `r` gets (G.107, annex B): 1 (bad) to 4.5 (the best there is).
#[must_use]
pub fn mos_of_rating(r: f64) -> f64 {
    match r {
        r if r <= 0.0 => 1.0,
        r if r >= 100.0 => 4.5,
        // Just above 0 the polynomial falls below 1, which no opinion is.
        r => (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0),
    }
}

/// The mean opinion score of a call.
#[must_use]
pub fn mos(codec: Codec, call: Call) -> f64 {
    mos_of_rating(rating(codec, call))
}

// The defaults of G.107, table 2.
/// Send loudness rating, dB.
const SLR: f64 = 8.0;
/// Receive loudness rating, dB.
const RLR: f64 = 2.0;
/// Sidetone masking rating, dB.
const STMR: f64 = 15.0;
/// D-value of the telephone, send and receive side.
const D: f64 = 3.0;
/// Talker echo loudness rating, dB.
const TELR: f64 = 65.0;
/// Weighted echo path loss, dB.
const WEPL: f64 = 110.0;
/// Room noise, send and receive side, dB(A).
const ROOM: f64 = 35.0;
/// Noise floor at the receive side, dBmp.
const FLOOR: f64 = -64.0;
/// Circuit noise, dBm0p.
const CIRCUIT: f64 = -70.0;
/// Quantising distortion units: one G.711 codec pair.
const QDU: f64 = 1.0;

/// No: all noise as one circuit noise at the 0 dBr point (7-3 to 7-6).
fn noise() -> f64 {
    let overall = SLR + RLR;
    let sender = ROOM - SLR - D - 100.0 + 0.004 * (ROOM - overall - D - 14.0).powi(2);
    let listener_sidetone = STMR + D;
    let effective = ROOM + 10.0 * (1.0 + power(10.0 - listener_sidetone)).log10();
    let receiver = RLR - 121.0 + effective + 0.008 * (effective - 35.0).powi(2);
    10.0 * (power(CIRCUIT) + power(sender) + power(receiver) + power(FLOOR + RLR)).log10()
}

/// Is: what comes together with the voice: too loud, sidetone, quantising (7-8 to 7-17).
fn simultaneous(basic: f64, noise: f64, delay_ms: f64) -> f64 {
    let x = SLR + RLR + 0.2 * (64.0 + noise - RLR);
    let loud = 20.0 * (smooth_max(x / 8.0, 8) - x / 8.0);
    let sidetone = -10.0 * (power(-STMR) + (-delay_ms / 4.0).exp() * power(-TELR)).log10();
    let side = 12.0 * smooth_max((sidetone - 13.0) / 6.0, 8)
        - 28.0 * smooth_max((sidetone + 1.0) / 19.4, 35)
        - 13.0 * smooth_max((sidetone - 3.0) / 33.0, 13)
        + 29.0;
    let q = 37.0 - 15.0 * QDU.log10();
    let g = 1.07 + 0.258 * q + 0.0602 * q * q;
    let (y, z) = ((basic - 100.0) / 15.0 + 46.0 / 8.4 - g / 9.0, 46.0 / 30.0 - g / 40.0);
    let quantising = 15.0 * (1.0 + 10_f64.powf(y) + 10_f64.powf(z)).log10();
    loud + side + quantising
}

/// Id: talker echo, listener echo, and delay as such (7-18 to 7-28). The echo path is as long as the path of the voice.
fn delay(basic: f64, noise: f64, delay_ms: f64) -> f64 {
    let t = delay_ms.max(0.0);
    let echo = TELR - 40.0 * ((1.0 + t / 10.0) / (1.0 + t / 150.0)).log10() + 6.0 * (-0.3 * t * t).exp();
    let (of_noise, of_echo) = (-1.5 * (noise - RLR), 80.0 + 2.5 * (echo - 14.0));
    let half = (of_noise - of_echo) / 2.0;
    let talker = (half + half.hypot(10.0) - 1.0) * (1.0 - (-t).exp());
    let half = (basic - 10.5 * (WEPL + 7.0) * (2.0 * t + 1.0).powf(-0.25)) / 2.0;
    let listener = half + half.hypot(13.0);
    let late = if t <= 100.0 {
        0.0
    } else {
        let x = (t / 100.0).log2();
        25.0 * (smooth_max(x, 6) - 3.0 * smooth_max(x / 3.0, 6) + 2.0)
    };
    talker + listener + late
}

/// Ie-eff: codec and loss (7-29).
fn equipment(codec: Codec, call: Call) -> f64 {
    let percent = call.loss.clamp(0.0, 1.0) * 100.0;
    let heard = percent / (percent / call.burst_ratio.max(1.0) + codec.robustness);
    codec.impairment + (95.0 - codec.impairment) * heard
}

fn power(decibel: f64) -> f64 {
    10_f64.powf(decibel / 10.0)
}

/// (1 + x^n)^(1/n): about the larger of 1 and x.
fn smooth_max(x: f64, n: i32) -> f64 {
    (1.0 + x.powi(n)).powf(1.0 / f64::from(n))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(delay_ms: f64, loss: f64) -> Call {
        Call { delay_ms, loss, burst_ratio: 1.0 }
    }

    #[test]
    fn the_default_values_give_93_2() {
        let r = rating(Codec::G711, call(0.0, 0.0));
        assert!((r - 93.2).abs() < 0.05, "{r}");
        assert!((mos_of_rating(r) - 4.41).abs() < 0.005, "{}", mos_of_rating(r));
    }

    #[test]
    fn ratings_become_the_scores_of_annex_b() {
        // G.107, table B.1.
        for (r, expected) in [(90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)] {
            assert!((mos_of_rating(r) - expected).abs() < 0.01, "{r}: {}", mos_of_rating(r));
        }
        assert_eq!([-5.0, 0.0, 1.0, 100.0, 120.0].map(mos_of_rating), [1.0, 1.0, 1.0, 4.5, 4.5]);
    }

    #[test]
    fn loss_impairs_as_in_g113() {
        // G.113, appendix I: G.711 with concealment, random loss in percent, Ie.
        for (percent, expected) in [(2.0, 7.0), (3.0, 10.0), (5.0, 15.0), (7.0, 20.0), (10.0, 25.0)] {
            let found = equipment(Codec::G711_PLC, call(0.0, percent / 100.0));
            assert!((found - expected).abs() <= 2.2, "{percent} %: {found}");
        }
        // Ie-eff = 95 * 1 / (1 + 4.3), by hand.
        assert!((equipment(Codec::G711, call(0.0, 0.01)) - 17.924_528).abs() < 1e-6);
        // In runs of twice the length of random ones: 95 * 4 / (2 + 25.1).
        let bursty = Call { delay_ms: 0.0, loss: 0.04, burst_ratio: 2.0 };
        assert!((equipment(Codec::G711_PLC, bursty) - 14.022_14).abs() < 1e-4);
    }

    #[test]
    fn delay_impairs_as_in_the_published_simplification() {
        // Cole and Rosenbluth, "Voice over IP performance monitoring" (2001): Id = 0.024 d + 0.11 (d - 177.3) H(d - 177.3).
        let none = rating(Codec::G711, call(0.0, 0.0));
        for d in [20.0, 50.0, 100.0, 150.0, 200.0, 250.0, 300.0] {
            let simple = 0.024 * d + 0.11 * (d - 177.3_f64).max(0.0);
            let full = none - rating(Codec::G711, call(d, 0.0));
            assert!((full - simple).abs() < 2.0, "{d} ms: {full} and {simple}");
        }
    }

    #[test]
    fn runs_of_losses_raise_the_burst_ratio() {
        assert_eq!(burst_ratio(0, 0, 1000), 1.0);
        assert_eq!(burst_ratio(10, 10, 1000), 1.0);
        // Runs of 5 at 10 % loss: 5 * (1 - 0.1).
        assert_eq!(burst_ratio(100, 20, 1000), 4.5);
    }

    proptest! {
        /// Worse networks never sound better.
        #[test]
        fn worse_is_worse(delay in 0.0..600.0, more in 0.0..100.0, loss in 0.0..0.3, bursts in 1.0..5.0) {
            let base = Call { delay_ms: delay, loss, burst_ratio: bursts };
            let worse = [
                Call { delay_ms: delay + more, ..base },
                Call { loss: loss + more / 200.0, ..base },
                Call { burst_ratio: bursts + more, ..base },
            ];
            for worse in worse {
                // The model itself is not perfectly monotone around 1 ms of echo: a fiftieth of a point.
                prop_assert!(rating(Codec::G711_PLC, worse) <= rating(Codec::G711_PLC, base) + 0.1, "{worse:?}");
            }
            let mos = mos(Codec::G711_PLC, base);
            prop_assert!((1.0..=4.5).contains(&mos));
        }
    }
}
