//! Amounts of resources, as Kubernetes writes them (`100m`, `64Mi`, `1.5e3`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A non-negative amount with the precision Kubernetes works with: thousandths.
///
/// The text a manifest used is not kept; [`fmt::Display`] writes a canonical form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity {
    milli: u128,
}

/// The text is not a quantity a node can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// Not of the form number plus suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Syntax,
    /// Below zero.
    #[error("must be greater than or equal to 0")]
    Negative,
    /// Larger than 2^63-1 units.
    #[error("must be at most 9223372036854775807")]
    TooLarge,
}

const MILLI: u128 = 1000;
/// The largest value Kubernetes keeps: 2^63-1.
const MAX: u128 = i64::MAX as u128 * MILLI;

// === impl Quantity ===

impl Quantity {
    /// So many whole units.
    pub fn from_units(units: u64) -> Self {
        Self { milli: u128::from(units) * MILLI }
    }

    /// So many thousandths.
    pub fn from_milli(milli: u64) -> Self {
        Self { milli: u128::from(milli) }
    }

    /// The amount in whole units, rounded up; saturates at `u64::MAX`.
    pub fn units(self) -> u64 {
        u64::try_from(self.milli.div_ceil(MILLI)).unwrap_or(u64::MAX)
    }

    /// The amount in thousandths; saturates at `u64::MAX`.
    pub fn milli(self) -> u64 {
        u64::try_from(self.milli).unwrap_or(u64::MAX)
    }

    /// How many times a divisor, rounded up: in thousandths as CPUs are divided, else in whole units. A divisor
    /// that is nothing, or less than a unit, counts as the least there is.
    pub fn divide(self, divisor: Self, in_milli: bool) -> u64 {
        let (amount, divisor) = match in_milli {
            true => (self.milli(), divisor.milli()),
            false => (self.units(), divisor.units()),
        };
        amount.div_ceil(divisor.max(1))
    }

    /// Both together; the largest amount there is, where it is more.
    pub fn plus(self, other: Self) -> Self {
        Self { milli: self.milli.saturating_add(other.milli).min(MAX) }
    }

    /// Nothing at all.
    pub fn is_zero(self) -> bool {
        self.milli == 0
    }
}

/// Power of ten, or power of 1024, a suffix stands for.
enum Scale {
    Decimal(i32),
    Binary(u32),
}

fn scale(suffix: &str) -> Option<Scale> {
    Some(match suffix {
        "n" => Scale::Decimal(-9),
        "u" => Scale::Decimal(-6),
        "m" => Scale::Decimal(-3),
        "" => Scale::Decimal(0),
        "k" => Scale::Decimal(3),
        "M" => Scale::Decimal(6),
        "G" => Scale::Decimal(9),
        "T" => Scale::Decimal(12),
        "P" => Scale::Decimal(15),
        "E" => Scale::Decimal(18),
        "Ki" => Scale::Binary(1),
        "Mi" => Scale::Binary(2),
        "Gi" => Scale::Binary(3),
        "Ti" => Scale::Binary(4),
        "Pi" => Scale::Binary(5),
        "Ei" => Scale::Binary(6),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let bare = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            Scale::Decimal(digits.parse().ok()?)
        }
    })
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(InvalidQuantity::Syntax);
        }
        let scale = scale(suffix).ok_or(InvalidQuantity::Syntax)?;
        // Digits of the number without its point; `-fraction.len()` is its power of ten.
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(Self::default());
        }
        if negative {
            return Err(InvalidQuantity::Negative);
        }
        // Beyond 27 digits only the magnitude matters: the sum below is exact up to there.
        let dropped = digits.len().saturating_sub(27);
        let mantissa: u128 = digits[..digits.len() - dropped].parse().map_err(|_| InvalidQuantity::Syntax)?;
        let places =
            i32::try_from(dropped).unwrap_or(i32::MAX) - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
        let (factor, power) = match scale {
            Scale::Decimal(power) => (1, places.saturating_add(power)),
            Scale::Binary(power) => (1024u128.pow(power), places),
        };
        let milli = mantissa.checked_mul(factor).map_or(Err(InvalidQuantity::TooLarge), |value| {
            shift_decimal(value, power.saturating_add(3)).ok_or(InvalidQuantity::TooLarge)
        })?;
        if milli > MAX { Err(InvalidQuantity::TooLarge) } else { Ok(Self { milli }) }
    }
}

/// `value * 10^power`, rounded up; `None` when it does not fit.
fn shift_decimal(value: u128, power: i32) -> Option<u128> {
    if power >= 0 {
        return value.checked_mul(10u128.checked_pow(power.unsigned_abs())?);
    }
    match 10u128.checked_pow(power.unsigned_abs()) {
        Some(divisor) => Some(value.div_ceil(divisor)),
        // A non-zero value below the smallest one kept is rounded up to it, as Kubernetes does.
        None => Some(1),
    }
}

impl TryFrom<String> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(text: String) -> Result<Self, InvalidQuantity> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> String {
        quantity.to_string()
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.milli.is_multiple_of(MILLI) {
            return write!(f, "{}m", self.milli);
        }
        let units = self.milli / MILLI;
        for (power, suffix) in [(4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")] {
            let step = 1024u128.pow(power);
            if units != 0 && units.is_multiple_of(step) {
                return write!(f, "{}{suffix}", units / step);
            }
        }
        write!(f, "{units}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_divided_and_rounded_up() {
        for (in_milli, amount, divisor, expected) in [
            (true, "250m", "1", 1),
            (true, "250m", "1m", 250),
            (true, "1500m", "1", 2),
            (true, "0", "1", 0),
            (false, "64Mi", "1", 67_108_864),
            (false, "64Mi", "1Mi", 64),
            (false, "65M", "1Mi", 62),
            (false, "1", "1Gi", 1),
            (false, "5", "0", 5),
        ] {
            let parse = |text: &str| text.parse::<Quantity>().unwrap();
            let divided = parse(amount).divide(parse(divisor), in_milli);
            assert_eq!(divided, expected, "{amount} / {divisor}");
        }
    }

    #[test]
    fn the_forms_kubernetes_documents() {
        for (text, milli) in [
            ("0", 0),
            ("1", 1000),
            ("100m", 100),
            ("0.1", 100),
            (".5", 500),
            ("5.", 5000),
            ("1k", 1_000_000),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("1.5Gi", 1_610_612_736_000),
            ("12e6", 12_000_000_000),
            ("12E6", 12_000_000_000),
            ("1e-3", 1),
            ("+2", 2000),
            ("1n", 1),
            ("0.0001", 1),
            ("1E", 1_000_000_000_000_000_000_000),
        ] {
            assert_eq!(text.parse::<Quantity>().map(|q| q.milli), Ok(milli), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for text in ["", "m", "1 Mi", "1.2.3", "1mi", "1KI", "0x10", "1e", "e3", "--1", "1e+", "ten", "1Mib"]
        {
            assert_eq!(text.parse::<Quantity>(), Err(InvalidQuantity::Syntax), "{text:?}");
        }
        assert_eq!("-1".parse::<Quantity>(), Err(InvalidQuantity::Negative));
        for text in ["1e99", "9223372036854775808", "8Ei", &"9".repeat(4000), "1e2147483647"] {
            assert_eq!(text.parse::<Quantity>(), Err(InvalidQuantity::TooLarge), "{text}");
        }
        assert!("1e-2147483648".parse::<Quantity>().is_ok());
    }

    #[test]
    fn display_parses_back() {
        for text in ["0", "100m", "1", "1500m", "64Mi", "1Gi", "1000", "9223372036854775807"] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!(quantity.to_string().parse::<Quantity>().unwrap(), quantity, "{text}");
        }
        assert_eq!("67108864".parse::<Quantity>().unwrap().to_string(), "64Mi");
    }
}
