//! Resource limits.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Context, Result, Step};
use crate::spec::Rlimit as Specified;

/// Parses a limit. `None` for one no kernel has.
pub(crate) fn parse(limit: &Specified) -> Option<(Resource, Rlimit)> {
    let value = |number: u64| (number != u64::MAX).then_some(number);
    let limits = Rlimit { current: value(limit.soft), maximum: value(limit.hard) };
    Some((resource(&limit.kind)?, limits))
}

/// Sets the limits. One this host does not let us raise (CAP_SYS_RESOURCE) is set as high as may be, and
/// said.
pub(crate) fn apply(limits: &[(Resource, Rlimit)]) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (resource, wanted) in limits {
        let what = format!("setting {resource:?}");
        match setrlimit(*resource, *wanted) {
            Err(Errno::PERM) => {
                let ceiling = getrlimit(*resource).maximum;
                let granted = Rlimit {
                    current: lower(wanted.current, ceiling),
                    maximum: lower(wanted.maximum, ceiling),
                };
                setrlimit(*resource, granted).at(Step::ResourceLimit, &what)?;
                warnings.push(format!(
                    "resource limit {resource:?}: this host grants {}, not {}",
                    show(granted.maximum),
                    show(wanted.maximum)
                ));
            }
            result => result.at(Step::ResourceLimit, &what)?,
        }
    }
    Ok(warnings)
}

/// The lower of two limits, of which `None` is none.
fn lower(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn show(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_STACK" => Resource::Stack,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_wins_and_none_is_the_highest() {
        assert_eq!(lower(Some(1), Some(2)), Some(1));
        assert_eq!(lower(None, Some(2)), Some(2));
        assert_eq!(lower(Some(1), None), Some(1));
        assert_eq!(lower(None, None), None);
    }
}
