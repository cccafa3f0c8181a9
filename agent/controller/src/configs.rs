//! ConfigMaps and Secrets at one time.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_model::{ConfigKey, ConfigObject};

/// The ConfigMaps and Secrets of the node at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configs {
    /// By kind, namespace and name.
    pub objects: BTreeMap<ConfigKey, Arc<ConfigObject>>,
    /// All manifests were read. Else an object that is not there may still be found, so it is not missing.
    pub complete: bool,
}
