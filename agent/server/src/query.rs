//! Query strings whose keys may repeat, as `command` does.

/// The decoded pairs, in order; `None` when an escape is wrong or the text is not UTF-8.
pub(crate) fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key)?, decode(value)?))
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let value = digit()? * 16 + digit()?;
                u8::try_from(value).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Appends `key=value` to a query, encoded.
pub(crate) fn append(query: &mut String, key: &str, value: &str) {
    query.push(if query.is_empty() { '?' } else { '&' });
    encode(query, key);
    query.push('=');
    encode(query, value);
}

/// Appends `text`, percent-encoded for a path segment or a query.
pub(crate) fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_again() {
        let mut query = String::new();
        let sent = [("command", "a b+c&d=e%/é\n"), ("command", ""), ("tty", "1")];
        for (key, value) in sent {
            append(&mut query, key, value);
        }
        let received = pairs(query.strip_prefix('?').unwrap()).unwrap();
        assert!(received.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(sent));
        assert!(pairs("a=%1").is_none() && pairs("a=%+1").is_none());
    }
}
