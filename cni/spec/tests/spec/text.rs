//! What the specification allows in a result, version by version, as it stands in its section "Result types" (0.4.0:
//! "Result").

use std::net::IpAddr;

use serde_json::{Map, Value};

/// A kind of value, and the one that it is checked with.
type Check = fn(&Value) -> bool;

/// A member of an object: its name, whether it must be there, what it is.
type Member = (&'static str, bool, Check);

fn text(value: &Value) -> bool {
    value.is_string()
}

fn not_empty(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn number(value: &Value) -> bool {
    value.as_u64().is_some()
}

fn family(value: &Value) -> bool {
    matches!(value.as_str(), Some("4" | "6"))
}

fn ip(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok())
}

/// An address with the length of a prefix.
fn cidr(value: &Value) -> bool {
    let parts = value.as_str().and_then(|text| text.split_once('/'));
    parts.is_some_and(|(ip, length)| {
        let longest = ip.parse().map(|ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 });
        longest.is_ok_and(|longest| length.parse::<u8>().is_ok_and(|length| length <= longest))
    })
}

fn texts(value: &Value) -> bool {
    value.as_array().is_some_and(|values| values.iter().all(text))
}

fn mac(value: &Value) -> bool {
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    value.as_str().is_some_and(|text| text.split(':').all(digits))
}

/// What is wrong with a result of an ADD in this version.
pub(crate) fn faults(result: &Value, version: &str) -> Vec<String> {
    let Value::Object(fields) = result else { return vec!["it is no object".to_owned()] };
    let newest = version == "1.1.0";
    let mut faults = Vec::new();
    if fields.get("cniVersion").and_then(Value::as_str) != Some(version) {
        faults.push(format!("cniVersion is not {version}"));
    }
    let mut interface: Vec<Member> =
        vec![("name", true, not_empty), ("mac", false, mac), ("sandbox", false, not_empty)];
    let mut address: Vec<Member> =
        vec![("address", true, cidr), ("gateway", false, ip), ("interface", false, number)];
    let mut route: Vec<Member> = vec![("dst", true, cidr), ("gw", false, ip)];
    if version == "0.4.0" {
        address.push(("version", true, family));
    }
    if newest {
        interface.extend([
            ("mtu", false, number as Check),
            ("socketPath", false, not_empty),
            ("pciID", false, not_empty),
        ]);
        route.extend(
            ["mtu", "advmss", "priority", "table", "scope"].map(|name| (name, false, number as Check)),
        );
    }
    let dns: [Member; 4] = [
        ("nameservers", false, texts),
        ("domain", false, text),
        ("search", false, texts),
        ("options", false, texts),
    ];
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("cniVersion", _) => {}
            ("interfaces", Value::Array(all)) => list(&mut faults, name, all, &interface),
            ("ips", Value::Array(all)) => list(&mut faults, name, all, &address),
            ("routes", Value::Array(all)) => list(&mut faults, name, all, &route),
            ("dns", Value::Object(members)) => object(&mut faults, name, members, &dns),
            _ => faults.push(format!("{name} does not belong there")),
        }
    }
    let count = fields.get("interfaces").and_then(Value::as_array).map_or(0, Vec::len);
    for ip in fields.get("ips").and_then(Value::as_array).into_iter().flatten() {
        let index = ip.get("interface").and_then(Value::as_u64);
        if index.is_some_and(|index| index >= count as u64) {
            faults.push(format!("{ip} is of an interface that is not in the list"));
        }
        let version = ip.get("version").and_then(Value::as_str);
        let v6 = ip.get("address").and_then(Value::as_str).is_some_and(|text| text.contains(':'));
        if version.is_some_and(|version| (version == "6") != v6) {
            faults.push(format!("{ip} is of another version"));
        }
    }
    faults
}

fn list(faults: &mut Vec<String>, name: &str, all: &[Value], members: &[Member]) {
    for (index, value) in all.iter().enumerate() {
        match value {
            Value::Object(fields) => object(faults, &format!("{name}[{index}]"), fields, members),
            _ => faults.push(format!("{name}[{index}] is no object")),
        }
    }
}

fn object(faults: &mut Vec<String>, name: &str, fields: &Map<String, Value>, members: &[Member]) {
    for (member, required, check) in members {
        match fields.get(*member) {
            None if *required => faults.push(format!("{name}.{member} is missing")),
            Some(value) if !check(value) => faults.push(format!("{name}.{member} is {value}")),
            _ => {}
        }
    }
    let known = |field: &str| members.iter().any(|(member, ..)| *member == field);
    faults.extend(
        fields
            .keys()
            .filter(|field| !known(field))
            .map(|field| format!("{name}.{field} does not belong there")),
    );
}
