//! What a count of lost packets says about the loss ratio.

/// The highest loss ratio that is still believable after `lost` of `sent` packets were lost: the one-sided upper bound of
/// Clopper and Pearson at `confidence` (0.95 for 95 %). With no loss it is the "rule of three", about 3 / `sent`.
/// 1 when nothing was sent.
#[must_use]
pub fn loss_at_most(lost: u64, sent: u64, confidence: f64) -> f64 {
    if sent == 0 || lost >= sent {
        return 1.0;
    }
    let doubt = 1.0 - confidence;
    if lost == 0 {
        return -(doubt.ln() / sent as f64).exp_m1();
    }
    let choose = ln_choose(sent, lost);
    // So few losses are less and less likely the higher the ratio is: halve between the ratio that was seen and 1.
    let (mut low, mut high) = (lost as f64 / sent as f64, 1.0);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if at_most(lost, sent, middle, choose) > doubt {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Packets that have to arrive without one loss before `loss_at_most` is below `ratio` (above 0, below 1).
#[must_use]
pub fn packets_to_show(ratio: f64, confidence: f64) -> u64 {
    ((1.0 - confidence).ln() / (-ratio).ln_1p()).ceil() as u64
}

/// The probability of `lost` or fewer losses among `sent` packets that are lost with probability `ratio`, for a ratio above
/// `lost / sent`; `choose` is the logarithm of their binomial coefficient.
fn at_most(lost: u64, sent: u64, ratio: f64, choose: f64) -> f64 {
    let mut term = (choose + lost as f64 * ratio.ln() + (sent - lost) as f64 * (-ratio).ln_1p()).exp();
    let mut sum = 0.0;
    // From the largest term down: each is smaller than the one before.
    for losses in (0..=lost).rev() {
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
        term *= losses as f64 * (1.0 - ratio) / ((sent - losses + 1) as f64 * ratio);
    }
    sum
}

fn ln_choose(n: u64, k: u64) -> f64 {
    let k = k.min(n - k);
    (0..k).map(|step| ((n - step) as f64).ln() - ((step + 1) as f64).ln()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_million_show_one_in_a_million() {
        assert_eq!(packets_to_show(1e-6, 0.95), 2_995_731);
        assert!(loss_at_most(0, 3_000_000, 0.95) < 1e-6);
        assert!(loss_at_most(0, 2_990_000, 0.95) > 1e-6);
        assert!(loss_at_most(1, 3_000_000, 0.95) > 1e-6);
    }

    #[test]
    fn published_bounds() {
        // Upper ends of two-sided 95 % intervals, which are one-sided 97.5 % bounds: binom.test in R for 0/10, 1/10, 5/10, 4/20.
        for (lost, sent, expected) in [(0, 10, 0.3085), (1, 10, 0.4450), (5, 10, 0.8129), (4, 20, 0.4366)] {
            let found = loss_at_most(lost, sent, 0.975);
            assert!((found - expected).abs() < 1e-4, "{lost}/{sent}: {found}");
        }
        // Rule of three.
        assert!((loss_at_most(0, 100_000, 0.95) * 100_000.0 - 2.9957).abs() < 1e-3);
        // Poisson limits for 1, 3 and 10 events at 95 %: 4.744, 7.754, 16.962.
        for (lost, expected) in [(1, 4.744), (3, 7.754), (10, 16.962)] {
            let found = loss_at_most(lost, 100_000_000, 0.95) * 1e8;
            assert!((found - expected).abs() < 1e-3, "{lost}: {found}");
        }
        assert_eq!((loss_at_most(0, 0, 0.95), loss_at_most(5, 5, 0.95)), (1.0, 1.0));
    }

    #[test]
    fn many_losses_are_answered_soon_and_near_the_normal_bound() {
        let (lost, sent) = (500_000_u64, 100_000_000_u64);
        let seen = lost as f64 / sent as f64;
        let normal = seen + 1.644_854 * (seen * (1.0 - seen) / sent as f64).sqrt();
        assert!((loss_at_most(lost, sent, 0.95) - normal).abs() < 1e-7);
    }

    proptest! {
        /// At the bound, the probability of so few losses is the doubt: the binomial sum written out.
        #[test]
        fn the_bound_is_where_so_few_become_unlikely(sent in 1_u64..200, lost in 0_u64..200, confidence in 0.5..0.999) {
            prop_assume!(lost < sent);
            let ratio = loss_at_most(lost, sent, confidence);
            let sum: f64 = (0..=lost).map(|k| {
                let choose: f64 = (0..k).map(|step| (sent - step) as f64 / (step + 1) as f64).product();
                choose * ratio.powi(k as i32) * (1.0 - ratio).powi((sent - k) as i32)
            }).sum();
            prop_assert!((sum - (1.0 - confidence)).abs() < 1e-6, "{sum}");
        }
    }
}
