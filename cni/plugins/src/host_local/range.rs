//! Ranges of addresses: what the configuration says, checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

/// A range as it stands in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RangeFields {
    pub(super) subnet: Option<IpNet>,
    pub(super) range_start: Option<IpAddr>,
    pub(super) range_end: Option<IpAddr>,
    pub(super) gateway: Option<IpAddr>,
}

/// Addresses of one subnet that may be given, and its gateway, which is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    subnet: IpNet,
    start: u128,
    end: u128,
    gateway: IpAddr,
}

/// Ranges of one family, of which one address is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<Range>);

// === impl Range ===

impl Range {
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub(super) fn new(fields: &RangeFields) -> Result<Self, String> {
        let Some(subnet) = fields.subnet else { return Err("a range needs a subnet".to_owned()) };
        if subnet.trunc() != subnet {
            return Err(format!("subnet {subnet} has host bits set: did you mean {}?", subnet.trunc()));
        }
        if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
            return Err(format!("subnet {subnet} has no usable addresses: it needs at least four"));
        }
        let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
        let within = |name: &str, given: Option<IpAddr>, default: u128| match given {
            None => Ok(default),
            Some(address) if subnet.contains(&address) => Ok(number(address)),
            Some(address) => Err(format!("{name} {address} is not in subnet {subnet}")),
        };
        // Of IPv4 the last address is the broadcast address; IPv6 has none.
        let is_v4 = matches!(subnet, IpNet::V4(_));
        let start = within("rangeStart", fields.range_start, first + 1)?;
        let end = within("rangeEnd", fields.range_end, if is_v4 { last - 1 } else { last })?;
        let gateway = match fields.gateway {
            None => address(first + 1, is_v4),
            Some(gateway) if gateway.is_ipv4() == is_v4 => gateway,
            Some(gateway) => {
                return Err(format!("gateway {gateway} is not of the family of subnet {subnet}"));
            }
        };
        if start > end {
            let (start, end) = (address(start, is_v4), address(end, is_v4));
            return Err(format!("range {start}-{end} of subnet {subnet} ends before it starts"));
        }
        let range = Self { subnet, start, end, gateway };
        if range.size() == 0 {
            return Err(format!("range {range} has no address but its gateway {gateway}"));
        }
        Ok(range)
    }

    fn is_v4(&self) -> bool {
        self.gateway.is_ipv4()
    }

    /// How many addresses it can give.
    fn size(&self) -> u128 {
        let gateway = u128::from((self.start..=self.end).contains(&number(self.gateway)));
        // One more than there are numbers for, for ::/0.
        (self.end - self.start).saturating_add(1) - gateway
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.is_v4() == other.is_v4() && self.start <= other.end && other.start <= self.end
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [start, end] = [self.start, self.end].map(|it| address(it, self.is_v4()));
        write!(formatter, "{start}-{end} of {}", self.subnet)
    }
}

// === impl RangeSet ===

impl RangeSet {
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub(super) fn new(fields: &[RangeFields]) -> Result<Self, String> {
        let ranges = fields.iter().map(Range::new).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = ranges.first() else { return Err("a set of ranges is empty".to_owned()) };
        if ranges.iter().any(|range| range.is_v4() != first.is_v4()) {
            return Err("a set of ranges mixes IPv4 and IPv6: each family needs a set of its own".to_owned());
        }
        for (at, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges[..at].iter().find(|other| range.overlaps(other)) {
                return Err(format!("ranges {other} and {range} overlap"));
            }
        }
        Ok(Self(ranges))
    }

    /// A range of this set and one of the other that have addresses in common.
    pub(super) fn overlap<'a>(&'a self, other: &'a Self) -> Option<(&'a Range, &'a Range)> {
        self.0.iter().find_map(|one| Some((one, other.0.iter().find(|other| one.overlaps(other))?)))
    }

    /// Whether an address may be given, and if so with which prefix and gateway.
    pub(super) fn find(&self, wanted: IpAddr) -> Option<(IpNet, IpAddr)> {
        let range = self.0.iter().find(|range| {
            range.is_v4() == wanted.is_ipv4()
                && (range.start..=range.end).contains(&number(wanted))
                && wanted != range.gateway
        })?;
        Some((IpNet::new(wanted, range.subnet.prefix_len()).ok()?, range.gateway))
    }

    /// Every address that may be given, once, beginning after `last`: so the one given last comes last.
    pub(super) fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
        let is_v4 = self.0.first().is_some_and(Range::is_v4);
        let place = last.filter(|last| last.is_ipv4() == is_v4).map(number).and_then(|last| {
            self.0.iter().position(|range| (range.start..=range.end).contains(&last)).map(|at| (at, last))
        });
        let (at, last) = place.map_or((0, None), |(at, last)| (at, Some(last)));
        let whole = move |range: &Range| range.start..=range.end;
        // After the very last IPv6 address there is none.
        let from = |range: &Range| last.map_or(Some(range.start), |last| last.checked_add(1));
        let first = self.0.get(at).and_then(|range| Some(from(range)?..=range.end));
        let others = self.0.iter().skip(at + 1).chain(self.0.iter().take(at)).map(whole);
        let rest = self.0.get(at).and_then(|range| last.map(|last| range.start..=last));
        let gateways: Vec<IpAddr> = self.0.iter().map(|range| range.gateway).collect();
        first
            .into_iter()
            .chain(others)
            .chain(rest)
            .flatten()
            .map(move |it| address(it, is_v4))
            .filter(move |it| !gateways.contains(it))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.iter().fold(0_u128, |sum, range| sum.saturating_add(range.size()));
        let ranges: Vec<String> = self.0.iter().map(Range::to_string).collect();
        write!(formatter, "{size} addresses of {}", ranges.join(" and "))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a number: of an IPv4 one no more than 32 bits are set.
fn address(number: u128, is_v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if is_v4 => Ipv4Addr::from(number).into(),
        _ => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(subnet: &str, start: &str, end: &str, gateway: &str) -> RangeFields {
        let address = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        RangeFields {
            subnet: Some(subnet.parse().unwrap()),
            range_start: address(start),
            range_end: address(end),
            gateway: address(gateway),
        }
    }

    fn set(ranges: &[RangeFields]) -> RangeSet {
        RangeSet::new(ranges).unwrap()
    }

    fn listed(set: &RangeSet, last: &str) -> Vec<String> {
        let last = (!last.is_empty()).then(|| last.parse().unwrap());
        set.after(last).map(|address| address.to_string()).collect()
    }

    #[test]
    fn what_is_not_said_follows_from_the_subnet() {
        let four = set(&[fields("10.1.2.0/29", "", "", "")]);
        assert_eq!(listed(&four, ""), ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
        assert_eq!(four.to_string(), "5 addresses of 10.1.2.1-10.1.2.6 of 10.1.2.0/29");
        let (address, gateway) = four.find("10.1.2.6".parse().unwrap()).unwrap();
        assert_eq!((address.to_string(), gateway.to_string()), ("10.1.2.6/29".into(), "10.1.2.1".into()));
        for not in ["10.1.2.0", "10.1.2.1", "10.1.2.7", "::10.1.2.3"] {
            assert_eq!(four.find(not.parse().unwrap()), None, "{not}");
        }
        // IPv6 has no broadcast address.
        assert_eq!(listed(&set(&[fields("fd00::/126", "", "", "")]), ""), ["fd00::2", "fd00::3"]);
        assert_eq!(
            listed(&set(&[fields("10.1.2.0/24", "10.1.2.8", "10.1.2.9", "10.1.2.254")]), ""),
            ["10.1.2.8", "10.1.2.9"]
        );
    }

    #[test]
    fn the_one_given_last_comes_last() {
        let two = set(&[
            fields("10.1.2.0/29", "10.1.2.2", "10.1.2.4", ""),
            fields("10.1.3.0/29", "", "10.1.3.3", ""),
        ]);
        assert_eq!(listed(&two, "10.1.2.3"), ["10.1.2.4", "10.1.3.2", "10.1.3.3", "10.1.2.2", "10.1.2.3"]);
        assert_eq!(listed(&two, "10.1.3.3"), ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.3.2", "10.1.3.3"]);
        // What was given last is of no range any more.
        assert_eq!(listed(&two, "10.9.9.9").len(), 5);
        assert_eq!(listed(&two, "fd00::1").len(), 5);
    }

    #[test]
    fn the_largest_range_is_walked_lazily() {
        let all = set(&[fields("::/0", "", "", "")]);
        assert_eq!(all.after(None).next().unwrap().to_string(), "::2");
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(all.after(Some(last)).next().unwrap().to_string(), "::2");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            (fields("10.1.2.3/24", "", "", ""), "has host bits set: did you mean 10.1.2.0/24?"),
            (fields("10.1.2.2/31", "", "", ""), "has no usable addresses"),
            (fields("10.1.2.0/24", "10.1.3.1", "", ""), "rangeStart 10.1.3.1 is not in subnet 10.1.2.0/24"),
            (fields("10.1.2.0/24", "10.1.2.9", "10.1.2.8", ""), "ends before it starts"),
            (fields("10.1.2.0/24", "", "", "fd00::1"), "gateway fd00::1 is not of the family"),
            (fields("10.1.2.0/24", "10.1.2.1", "10.1.2.1", ""), "has no address but its gateway 10.1.2.1"),
            (RangeFields::default(), "a range needs a subnet"),
        ];
        for (fields, expected) in cases {
            let error = Range::new(&fields).unwrap_err();
            assert!(error.contains(expected), "{fields:?} gave {error:?}, not {expected:?}");
        }
        let mixed = [fields("10.1.2.0/24", "", "", ""), fields("fd00::/64", "", "", "")];
        assert!(RangeSet::new(&mixed).unwrap_err().contains("mixes IPv4 and IPv6"));
        let twice = [fields("10.1.0.0/16", "", "", ""), fields("10.1.2.0/24", "", "", "")];
        assert!(RangeSet::new(&twice).unwrap_err().contains("overlap"));
        assert!(RangeSet::new(&[]).unwrap_err().contains("empty"));
    }
}
