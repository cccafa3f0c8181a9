//! The capability sets of a process.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::failure::{Context, Result, Step};
use crate::spec::Capabilities;

/// What the sets are to be. The inheritable set is always empty, whatever was specified: a program with
/// inheritable file capabilities would gain them (CVE-2022-29162). The ambient set cannot but be empty then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapabilityPlan {
    pub(crate) bounding: CapabilitySet,
    pub(crate) effective: CapabilitySet,
    pub(crate) permitted: CapabilitySet,
}

impl CapabilityPlan {
    /// Leaves out what this process does not have itself, and says which.
    pub(crate) fn reduce(&mut self) -> Result<Option<String>> {
        let held = capabilities(None).at(Step::Capabilities, "reading")?.permitted;
        let missing = (self.bounding | self.effective | self.permitted) - held;
        self.bounding &= held;
        self.effective &= held;
        self.permitted &= held;
        if missing.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = caps::all()
            .into_iter()
            .filter(|cap| missing.bits() & cap.bitmask() != 0)
            .map(|cap| cap.to_string())
            .collect();
        Ok(Some(format!("capabilities: this host does not grant {}", names.join(", "))))
    }

    /// Empties the bounding set but for what is wanted. Needs CAP_SETPCAP.
    pub(crate) fn limit_bounding(&self) -> Result<()> {
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            if self.bounding.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // Past the last the kernel has; newer kernels have more than we know by name.
                Err(Errno::INVAL) => break,
                result => result.at(Step::Capabilities, "limiting the bounding set")?,
            }
        }
        Ok(())
    }

    /// Makes effective whatever is permitted, for a last privileged step after the change of user.
    pub(crate) fn raise_all(&self) -> Result<()> {
        let mut sets = capabilities(None).at(Step::Capabilities, "reading")?;
        sets.effective = sets.permitted;
        set_capabilities(None, sets).at(Step::Capabilities, "raising")
    }

    /// Takes on the other sets. The last step of all that needs privilege.
    pub(crate) fn apply(&self) -> Result<()> {
        let sets = CapabilitySets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: CapabilitySet::empty(),
        };
        clear_ambient_capability_set().at(Step::Capabilities, "clearing the ambient set")?;
        set_capabilities(None, sets).at(Step::Capabilities, "taking them on")
    }
}

/// Parses the sets. Fails with the name no kernel has.
pub(crate) fn plan(specified: &Capabilities) -> std::result::Result<CapabilityPlan, String> {
    let permitted = set(&specified.permitted)?;
    Ok(CapabilityPlan {
        bounding: set(&specified.bounding)?,
        // capset(2): nothing is effective that is not permitted.
        effective: set(&specified.effective)? & permitted,
        permitted,
    })
}

fn set(names: &[String]) -> std::result::Result<CapabilitySet, String> {
    names.iter().try_fold(CapabilitySet::empty(), |all, name| {
        let capability: caps::Capability = name.parse().map_err(|_| name.clone())?;
        Ok(all | CapabilitySet::from_bits_retain(capability.bitmask()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_bits_and_nothing_is_effective_that_is_not_permitted() {
        let json = r#"{"bounding":["CAP_CHOWN","CAP_BPF"],"permitted":["CAP_CHOWN"],
                       "effective":["CAP_CHOWN","CAP_SYS_ADMIN"],"inheritable":["CAP_CHOWN"]}"#;
        let plan = plan(&serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!(plan.bounding, CapabilitySet::CHOWN | CapabilitySet::BPF);
        assert_eq!(plan.effective, CapabilitySet::CHOWN);
        assert_eq!(plan.permitted, CapabilitySet::CHOWN);
    }

    #[test]
    fn a_name_no_kernel_has_is_refused() {
        let specified = serde_json::from_str(r#"{"bounding":["CAP_CHOWN","CAP_FLY"]}"#).unwrap();
        assert_eq!(plan(&specified), Err("CAP_FLY".to_owned()));
    }
}
