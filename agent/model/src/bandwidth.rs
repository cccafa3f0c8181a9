//! How much a pod may send and receive, by annotation.

use crate::Quantity;

/// The annotations of a pod by which Kubernetes limits what it receives, and what it sends.
pub const BANDWIDTH_ANNOTATIONS: [&str; 2] =
    ["kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"];

/// The least and the most of them, in bits a second, as the kubelet has it.
const ALLOWED: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// Reads one of the annotations: bits a second.
///
/// # Errors
/// What is wrong with it.
pub fn parse_bandwidth(text: &str) -> Result<u64, String> {
    let quantity: Quantity = text.trim().parse().map_err(|error| format!("{error}"))?;
    Some(quantity.units())
        .filter(|rate| ALLOWED.contains(rate))
        .ok_or_else(|| "must be between 1k and 1P, in bits a second".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_bits_a_second() {
        assert_eq!(parse_bandwidth("10M"), Ok(10_000_000));
        assert_eq!(parse_bandwidth("1k"), Ok(1_000));
        for wrong in ["", "fast", "999", "2P", "-1M"] {
            assert!(parse_bandwidth(wrong).is_err(), "{wrong}");
        }
    }
}
