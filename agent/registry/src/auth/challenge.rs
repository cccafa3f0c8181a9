//! `WWW-Authenticate` (RFC 9110, section 11.6.1).

use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;

/// How a registry wants to be shown who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Challenge {
    /// By a token of a token service ([Docker's], which RFC 6750 is the scheme of).
    ///
    /// [Docker's]: https://distribution.github.io/distribution/spec/auth/token/
    Bearer {
        /// The service's address.
        realm: String,
        /// The registry, as the service knows it.
        service: Option<String>,
        /// What the token is to be good for.
        scope: Option<String>,
    },
    /// By user and password (RFC 7617).
    Basic,
}

/// A scheme and its parameters.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    scheme: String,
    parameters: Vec<(String, String)>,
}

// === impl Challenge ===

impl Challenge {
    /// The one to answer of those an answer has: a token is preferred, since no password is shown to the registry then.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<Parsed> = texts.flat_map(parse).collect();
        let bearer = all.iter().filter(|one| one.scheme == "bearer").find_map(|one| {
            let realm = one.parameter("realm")?.to_owned();
            let text = |name| one.parameter(name).filter(|text| !text.is_empty()).map(str::to_owned);
            Some(Self::Bearer { realm, service: text("service"), scope: text("scope") })
        });
        bearer.or_else(|| all.iter().any(|one| one.scheme == "basic").then_some(Self::Basic))
    }
}

// === impl Parsed ===

impl Parsed {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of a header. A comma separates both challenges and parameters: a word that is followed by none of `=`
/// begins a challenge. What cannot be understood ends it.
fn parse(text: &str) -> Vec<Parsed> {
    let mut all: Vec<Parsed> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else { return all };
        let value = after.trim_start_matches([' ', '\t']);
        let Some(value) = value.strip_prefix('=') else {
            all.push(Parsed { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            rest = after;
            continue;
        };
        let value = value.trim_start_matches([' ', '\t']);
        let Some((value, after)) =
            quoted(value).or_else(|| token(value).map(|(v, rest)| (v.to_owned(), rest)))
        else {
            return all;
        };
        let Some(challenge) = all.last_mut() else { return all };
        challenge.parameters.push((word.to_ascii_lowercase(), value));
        rest = after;
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn of(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
    }

    #[test]
    fn challenges_of_registries() {
        for (texts, expected) in [
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
                ][..],
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/nginx:pull"),
                ),
            ),
            (&[r#"bearer REALM=https://a/t , scope="a b,c""#], bearer("https://a/t", None, Some("a b,c"))),
            (&[r#"Basic realm="a, Bearer realm=x""#], Some(Challenge::Basic)),
            (&[r#"Basic realm="x", Bearer realm="https://a/t""#], bearer("https://a/t", None, None)),
            (
                &[r#"Basic realm="x""#, r#"Bearer realm="https://a/t",service="""#],
                bearer("https://a/t", None, None),
            ),
            (&[r#"Bearer realm="https://a/\"t\\""#], bearer(r#"https://a/"t\"#, None, None)),
            (&[r#"Negotiate, Basic"#], Some(Challenge::Basic)),
            (&[r#"Bearer"#], None),
            (&[r#"Bearer realm="unended"#], None),
            (&[r#"realm="x""#], None),
            (&["Digest realm=x"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(of(texts), expected, "{texts:?}");
        }
    }
}
