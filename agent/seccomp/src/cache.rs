//! Programs that are compiled already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::{CapSet, Error, Host, Profile, Program, compile, default_profile};

/// The most programs kept. Far more than a node has profiles; users who keep changing theirs start over.
const MAX_PROGRAMS: usize = 64;

/// Compiles each profile once per set of capabilities, and shares the program between containers.
#[derive(Debug)]
pub struct Cache {
    host: Host,
    programs: Mutex<HashMap<Key, Arc<Program>>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The text of a profile; `None` stands for the default.
    profile: Option<Vec<u8>>,
    capabilities: CapSet,
}

impl Cache {
    /// An empty cache for a node.
    pub fn new(host: Host) -> Self {
        Self { host, programs: Mutex::default() }
    }

    /// The default profile for a container with this bounding set.
    ///
    /// # Errors
    /// None that a capability set could cause.
    pub fn default_profile(&self, capabilities: &CapSet) -> Result<Arc<Program>, Error> {
        let key = Key { profile: None, capabilities: capabilities.clone() };
        self.get(key, || default_profile(self.host.architecture, capabilities))
    }

    /// A profile given as text, for a container with this bounding set.
    ///
    /// # Errors
    /// When the text is no profile that can be used.
    pub fn profile(&self, text: &[u8], capabilities: &CapSet) -> Result<Arc<Program>, Error> {
        let key = Key { profile: Some(text.to_vec()), capabilities: capabilities.clone() };
        self.get(key, || Profile::parse(text)?.resolve(&self.host, capabilities))
    }

    fn get(
        &self,
        key: Key,
        profile: impl FnOnce() -> Result<oci_spec::runtime::LinuxSeccomp, Error>,
    ) -> Result<Arc<Program>, Error> {
        let lock = || self.programs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(program) = lock().get(&key) {
            return Ok(Arc::clone(program));
        }
        // Compiled without the lock: two containers that come at once both do it, and none waits.
        let program = Arc::new(compile(&profile()?, self.host.architecture)?);
        let mut programs = lock();
        if programs.len() >= MAX_PROGRAMS {
            programs.clear();
        }
        Ok(Arc::clone(programs.entry(key).or_insert(program)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_compiled_once_per_profile_and_capabilities() {
        let cache = Cache::new(Host::detect().unwrap());
        let (none, admin) = (CapSet::default(), CapSet::from_iter(["SYS_ADMIN"]));
        let first = cache.default_profile(&none).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.default_profile(&none).unwrap()));
        assert_ne!(first, cache.default_profile(&admin).unwrap());
        let text = br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
        let other = cache.profile(text, &none).unwrap();
        assert!(Arc::ptr_eq(&other, &cache.profile(text, &none).unwrap()));
        assert_ne!(first, other);
        for index in 0..2 * MAX_PROGRAMS {
            cache.profile(text, &CapSet::from_iter([index.to_string()])).unwrap();
        }
        assert!(cache.programs.lock().unwrap().len() <= MAX_PROGRAMS);
    }

    #[test]
    fn a_bad_profile_is_an_error_each_time() {
        let cache = Cache::new(Host::detect().unwrap());
        for _ in 0..2 {
            assert!(cache.profile(b"{}", &CapSet::default()).is_err());
        }
    }
}
