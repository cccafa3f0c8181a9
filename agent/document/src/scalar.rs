//! What a plain YAML scalar means, by the rules of the parser kubectl and the kubelet use.
//!
//! That parser (sigs.k8s.io/yaml over go-yaml 2) reads YAML 1.1 without its base-60 numbers: `yes`,
//! `on` and `y` are booleans, `0644` and `0o644` are octal, `1_000` is a number and `12:30` is text.
//! A manifest must mean the same here as there, or a pod would be another pod.

use crate::node::Value;

/// Why a scalar has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// NaN or infinity, which JSON does not have.
    NotFinite,
}

/// The value of a plain (unquoted, untagged) scalar.
pub(crate) fn resolve(text: &str) -> Result<Option<Value<'static>>, Unusable> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Some(Value::Bool(true))
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Some(Value::Bool(false))
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf"
        | "-.Inf" | "-.INF" => return Err(Unusable::NotFinite),
        _ => match text.as_bytes()[0] {
            b'0'..=b'9' | b'+' | b'-' | b'.' => number(text)?,
            _ => None,
        },
    })
}

fn number(text: &str) -> Result<Option<Value<'static>>, Unusable> {
    let plain: String = text.chars().filter(|character| *character != '_').collect();
    if !text.starts_with('.')
        && let Some(value) = integer(&plain)
    {
        return Ok(Some(value));
    }
    if !is_float(&plain) {
        return Ok(None);
    }
    match plain.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Some(Value::Float(value))),
        Ok(_) => Err(Unusable::NotFinite),
        Err(_) => Ok(None),
    }
}

/// An integer as Go's `strconv.ParseInt` with base 0 takes it: `0x`, `0o`, `0b` and a bare `0` choose
/// the base.
fn integer(text: &str) -> Option<Value<'static>> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // from_str_radix takes a sign of its own, which here would be a second one.
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, base).ok()?;
    match (negative, i64::try_from(magnitude)) {
        (false, Ok(value)) => Some(Value::Int(value)),
        (false, Err(_)) => Some(Value::UInt(magnitude)),
        (true, Ok(value)) => Some(Value::Int(-value)),
        (true, Err(_)) if magnitude == i64::MIN.unsigned_abs() => Some(Value::Int(i64::MIN)),
        (true, Err(_)) => None,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return false;
        }
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match resolve(text) {
            Ok(None) => "text".to_owned(),
            Ok(Some(value)) => format!("{value:?}"),
            Err(_) => "unusable".to_owned(),
        }
    }

    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        for (text, meaning) in [
            ("", "Null"),
            ("~", "Null"),
            ("NULL", "Null"),
            ("nuLL", "text"),
            ("y", "Bool(true)"),
            ("On", "Bool(true)"),
            ("NO", "Bool(false)"),
            ("yEs", "text"),
            ("0", "Int(0)"),
            ("-0", "Int(0)"),
            ("0644", "Int(420)"),
            ("0o644", "Int(420)"),
            ("0x1F", "Int(31)"),
            ("0b101", "Int(5)"),
            ("-0b1", "Int(-1)"),
            ("089", "Float(89.0)"),
            ("1_000", "Int(1000)"),
            ("+5", "Int(5)"),
            ("--5", "text"),
            ("0x-1", "text"),
            ("12:30", "text"),
            ("1:30:00", "text"),
            ("1.5", "Float(1.5)"),
            ("1.", "Float(1.0)"),
            (".5", "Float(0.5)"),
            ("1e3", "Float(1000.0)"),
            ("1e", "text"),
            (".", "text"),
            ("1.2.3", "text"),
            ("1.2.3.4", "text"),
            ("100m", "text"),
            ("64Mi", "text"),
            ("2026-01-01", "text"),
            ("9223372036854775807", "Int(9223372036854775807)"),
            ("18446744073709551615", "UInt(18446744073709551615)"),
            ("-9223372036854775808", "Int(-9223372036854775808)"),
            ("99999999999999999999", "Float(1e20)"),
            (".inf", "unusable"),
            ("1e999", "unusable"),
            ("Infinity", "text"),
            ("nan", "text"),
            ("-", "text"),
            ("é", "text"),
        ] {
            assert_eq!(show(text), meaning, "{text:?}");
        }
    }
}
