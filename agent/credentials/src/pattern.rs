//! Which images an entry of a docker configuration, or a credential provider, is for: the kubelet's matching, as
//! [Kubernetes' documentation](https://kubernetes.io/docs/concepts/containers/images/#config-json) has it.

use coracle_model::ImageName;

/// The start of a name: `host[:port][/path]`. The host may have globs, which match within one of its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern {
    /// What it is sorted by: of two patterns of one host, the one with the longer path comes later.
    text: String,
    host: usize,
    port: Option<usize>,
}

/// Docker Hub, as image names have it.
pub(crate) const DOCKER_HUB: &str = "docker.io";

// === impl Pattern ===

impl Pattern {
    /// Reads one, with or without a scheme. `None` where there is no host.
    ///
    /// `https://index.docker.io/v1/`, by which Docker files what is for Docker Hub, is the same as `docker.io`; the paths
    /// `/v1/` and `/v2/` of other registries are their APIs, and no part of an image's name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text =
            ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let authority = authority.to_ascii_lowercase();
        let authority = if authority == "index.docker.io" { DOCKER_HUB } else { &authority };
        let path = match path.get(..3) {
            Some("/v1" | "/v2") if matches!(path.as_bytes().get(3), None | Some(b'/')) => &path[3..],
            _ => path,
        };
        let path = if path == "/" { "" } else { path };
        let (host, port) = split_port(authority);
        if host.is_empty() {
            return None;
        }
        Some(Self { text: format!("{authority}{path}"), host: host.len(), port: port.map(str::len) })
    }

    /// Its host and port.
    pub(crate) fn authority(&self) -> &str {
        let length = self.host + self.port.map_or(0, |port| 1 + port);
        self.text.get(..length).unwrap_or_default()
    }

    /// Whether it is for this image. As in the kubelet, a path is the beginning of a text, not of whole components.
    pub(crate) fn matches(&self, name: &ImageName) -> bool {
        let domain = name.domain().to_ascii_lowercase();
        let (host, port) = split_port(&domain);
        let (own_host, rest) = self.text.split_at(self.host);
        let (own_port, path) = match self.port {
            Some(length) => {
                let (port, path) = rest.split_at(1 + length);
                (port.get(1..), path)
            }
            None => (None, rest),
        };
        own_port == port
            && own_host.split('.').count() == host.split('.').count()
            && own_host
                .split('.')
                .zip(host.split('.'))
                // An IPv6 address would be no glob.
                .all(|(glob, label)| glob == label || glob_matches(glob, label))
            && path.strip_prefix('/').is_none_or(|path| name.path().starts_with(path))
    }
}

/// Host and port. An IPv6 address stays in its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Go's `filepath.Match`, for one label: `*`, `?`, `[a-z]`, `[^a-z]`, `\` before what is meant as it stands. What is no
/// glob matches nothing.
fn glob_matches(glob: &str, label: &str) -> bool {
    let (glob, label) = (glob.as_bytes(), label.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if glob.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, seen));
            continue;
        }
        let fits = match (glob.get(at..).unwrap_or_default(), label.get(seen)) {
            ([], None) => return true,
            ([], Some(_)) | (_, None) => None,
            (glob, Some(byte)) => one(glob, *byte),
        };
        match (fits, star) {
            (Some(length), _) => (at, seen) = (at + length, seen + 1),
            (None, Some((after, from))) if from < label.len() => {
                star = Some((after, from + 1));
                (at, seen) = (after, from + 1);
            }
            (None, _) => return false,
        }
    }
}

/// Whether the first term of a glob is for this byte: the term's length.
fn one(glob: &[u8], byte: u8) -> Option<usize> {
    match glob {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => {
            let (negated, class) = match rest {
                [b'^', class @ ..] => (true, class),
                class => (false, class),
            };
            let (found, length) = in_class(class, byte)?;
            (found != negated).then_some(1 + usize::from(negated) + length)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// Whether a class, which begins behind `[` or `[^`, has this byte, and its length with the `]`.
fn in_class(class: &[u8], byte: u8) -> Option<(bool, usize)> {
    let (mut at, mut found) = (0, false);
    let literal = |at: usize| match class.get(at..)? {
        [b'\\', literal, ..] => Some((*literal, at + 2)),
        [b'-' | b']', ..] | [] => None,
        [literal, ..] => Some((*literal, at + 1)),
    };
    loop {
        if at > 0 && class.get(at) == Some(&b']') {
            return Some((found, at + 1));
        }
        let (low, next) = literal(at)?;
        let (high, next) = if class.get(next) == Some(&b'-') { literal(next + 1)? } else { (low, next) };
        found |= (low..=high).contains(&byte);
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, image: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&image.parse().unwrap())
    }

    #[test]
    fn what_kubernetes_documents() {
        for (pattern, image) in [
            ("*.kubernetes.io", "abc.kubernetes.io/x"),
            ("k8s.*.io", "k8s.gcr.io/x"),
            ("*.*.io", "a.b.io/x"),
            ("prefix*.io", "prefix1.io/x"),
            ("*-good.kubernetes.io", "prefix-good.kubernetes.io/x"),
            ("my-registry.example/images", "my-registry.example/images/my-app"),
            ("my-registry.example/images", "my-registry.example/images/another-image:v1"),
            ("*.my-registry.example/images", "sub.my-registry.example/images/my-app"),
            ("https://registry.example:5000/v2/", "registry.example:5000/a/b"),
            ("registry.example/v1/", "registry.example/a"),
            ("registry.example/v2", "registry.example/a"),
            ("http://registry.example/", "registry.example/a"),
            ("Registry.Example", "registry.example/a"),
            ("https://index.docker.io/v1/", "nginx"),
            ("index.docker.io", "docker.io/library/nginx"),
            ("docker.io", "index.docker.io/me/x"),
            ("docker.io/me", "me/x"),
            ("*.io", "me/x"),
            ("[::1]:5000", "[::1]:5000/x"),
            ("r[0-9a-c].io", "r7.io/x"),
            ("r[^0-9].io", "rb.io/x"),
            ("r?.io", "rb.io/x"),
        ] {
            assert!(matches(pattern, image), "{pattern} {image}");
        }
    }

    #[test]
    fn what_is_not_meant() {
        for (pattern, image) in [
            ("*.kubernetes.io", "kubernetes.io/x"),
            ("*.kubernetes.io", "a.b.kubernetes.io/x"),
            ("kubernetes.io", "a.kubernetes.io/x"),
            ("*", "a.io/x"),
            ("registry.example", "registry.example:5000/x"),
            ("registry.example:5000", "registry.example/x"),
            ("registry.example:5*", "registry.example:5000/x"),
            ("registry.example/images", "registry.example/image/x"),
            ("registry.example/*", "registry.example/x"),
            ("docker.io", "quay.io/x"),
            ("docker.io/me", "you/x"),
            ("r[0-9.io", "r7.io/x"),
            ("r[].io", "r7.io/x"),
            ("r[^0-9].io", "r7.io/x"),
            ("registry.example/v2x", "registry.example/x"),
        ] {
            assert!(!matches(pattern, image), "{pattern} {image}");
        }
        for nothing in ["", "https://", "/path", ":5000"] {
            assert!(Pattern::parse(nothing).is_none(), "{nothing:?}");
        }
    }

    #[test]
    fn globs_take_no_long_time() {
        let glob = "*a".repeat(60);
        assert!(!glob_matches(&glob, &"a".repeat(59)));
        assert!(glob_matches(&glob, &"a".repeat(61)));
        assert!(!glob_matches("*a*b", &"a".repeat(5000)));
        assert!(glob_matches("a*b*c", "a-b-b-c") && !glob_matches("a*b*c", "a-b-b-d"));
    }

    #[test]
    fn the_longer_path_is_the_later() {
        let mut patterns = ["a.io/x/y", "a.io", "b.io", "a.io/x"].map(|text| Pattern::parse(text).unwrap());
        patterns.sort();
        let texts: Vec<_> = patterns.iter().rev().map(|pattern| pattern.text.as_str()).collect();
        assert_eq!(texts, ["b.io", "a.io/x/y", "a.io/x", "a.io"]);
    }
}
