//! The ConfigMaps and Secrets of the node.

use std::collections::BTreeSet;
use std::sync::Arc;

use coracle_model::ConfigKey;
use tokio::sync::watch;

use crate::Configs;

/// The accepted ConfigMaps and Secrets, in memory only. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct ConfigStore {
    /// `None` until the manifests were read: nothing can be said to be missing yet.
    configs: watch::Sender<Option<Arc<Configs>>>,
}

/// What has become different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The objects that came, went or have another content.
    pub changed: BTreeSet<ConfigKey>,
    /// From now on, what is not there is missing.
    pub completed: bool,
}

// === impl ConfigStore ===

impl Default for ConfigStore {
    fn default() -> Self {
        Self { configs: watch::Sender::new(None) }
    }
}

impl ConfigStore {
    /// Takes these objects in place of those before; what is different.
    pub fn replace(&self, configs: Configs) -> Replaced {
        let mut replaced = Replaced::default();
        self.configs.send_modify(|before| {
            let nothing = Configs::default();
            let old = before.as_deref().unwrap_or(&nothing);
            let (from, to) = (&old.objects, &configs.objects);
            let keys = from.keys().chain(to.keys());
            replaced.changed = keys.filter(|key| from.get(*key) != to.get(*key)).cloned().collect();
            replaced.completed = configs.complete && !old.complete;
            *before = Some(Arc::new(configs));
        });
        replaced
    }

    /// What there is now. Waits until the manifests were read for the first time.
    pub async fn current(&self) -> Arc<Configs> {
        let mut configs = self.configs.subscribe();
        match configs.wait_for(Option::is_some).await {
            Ok(configs) => configs.clone().unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => Arc::default(),
        }
    }

    /// What there is now; nothing before the manifests were read.
    pub fn now(&self) -> Arc<Configs> {
        self.configs.borrow().clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coracle_model::{ConfigKind, ConfigObject, Name};
    use futures_util::FutureExt;

    use super::*;

    fn configs(objects: &[(&str, &str)], complete: bool) -> Configs {
        let object = |(name, value): &(&str, &str)| {
            let namespace = Name::label("default").unwrap();
            let key = ConfigKey { kind: ConfigKind::Secret, namespace, name: Name::label(*name).unwrap() };
            let data = [("key".to_owned(), Arc::from(value.as_bytes()))].into();
            let object = ConfigObject {
                key: key.clone(),
                data,
                binary_data: BTreeMap::new(),
                secret_type: String::new(),
                immutable: false,
            };
            (key, Arc::new(object))
        };
        Configs { objects: objects.iter().map(object).collect(), complete }
    }

    #[test]
    fn what_changed_is_told() {
        let store = ConfigStore::default();
        assert!(store.current().now_or_never().is_none(), "not read yet is not missing");
        for (objects, complete, expected, completed) in [
            (&[("a", "1"), ("b", "1")][..], false, &["a", "b"][..], false),
            (&[("a", "1"), ("b", "1")], false, &[], false),
            (&[("a", "2"), ("b", "1")], true, &["a"], true),
            (&[("b", "1"), ("c", "1")], true, &["a", "c"], false),
            (&[], true, &["b", "c"], false),
        ] {
            let replaced = store.replace(configs(objects, complete));
            let changed: Vec<_> = replaced.changed.iter().map(|key| key.name.as_str()).collect();
            assert_eq!((&changed[..], replaced.completed), (expected, completed));
            assert_eq!(*store.current().now_or_never().unwrap(), configs(objects, complete));
        }
        assert!(!format!("{:?}", configs(&[("a", "hidden")], true)).contains("hidden"));
    }
}
