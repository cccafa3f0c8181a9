//! What a resolv.conf(5) says, for the result.

use std::fs;
use std::path::Path;

use coracle_cni::{CniError, Dns, code, resolv_conf_lines};

/// Reads the file a configuration names.
pub(super) fn read(path: &Path) -> Result<Dns, CniError> {
    let text = fs::read_to_string(path).map_err(|error| {
        CniError::new(code::IO, format!("host-local: cannot read resolvConf {}: {error}", path.display()))
    })?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for (keyword, words) in resolv_conf_lines(text) {
        let mut words = words.map(str::to_owned);
        match keyword {
            "nameserver" => dns.nameservers.extend(words.next()),
            "domain" => dns.domain = words.next().unwrap_or_default(),
            // The last of them counts.
            "search" => dns.search = words.collect(),
            "options" => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_keyword() {
        let dns = parse(
            "# of the host\nnameserver 10.0.0.1 # first\nnameserver fd00::1\ndomain example.org\n\
             search a.example\nsearch b.example c.example\noptions ndots:2\noptions edns0 rotate\nsortlist 1.2.3.4\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.1", "fd00::1"]);
        assert_eq!(dns.domain, "example.org");
        assert_eq!(dns.search, ["b.example", "c.example"]);
        assert_eq!(dns.options, ["ndots:2", "edns0", "rotate"]);
    }
}
