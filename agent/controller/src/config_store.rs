//! The ConfigMaps and Secrets of the node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_model::{ConfigKey, ConfigObject};
use tokio::sync::watch;

/// What of them there is at one time.
pub type Configs = BTreeMap<ConfigKey, Arc<ConfigObject>>;

/// The accepted ConfigMaps and Secrets, in memory only. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct ConfigStore {
    /// `None` until the manifests were read: nothing can be said to be missing yet.
    configs: watch::Sender<Option<Arc<Configs>>>,
}

// === impl ConfigStore ===

impl Default for ConfigStore {
    fn default() -> Self {
        Self { configs: watch::Sender::new(None) }
    }
}

impl ConfigStore {
    /// Takes these objects in place of those before; which keys came, went or have another content.
    pub fn replace(&self, configs: Configs) -> BTreeSet<ConfigKey> {
        let mut changed = BTreeSet::new();
        self.configs.send_modify(|before| {
            let empty = Configs::new();
            let old = before.as_deref().unwrap_or(&empty);
            let keys = old.keys().chain(configs.keys());
            changed = keys.filter(|key| old.get(*key) != configs.get(*key)).cloned().collect();
            *before = Some(Arc::new(configs));
        });
        changed
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
    use coracle_model::{ConfigKind, Name};
    use futures_util::FutureExt;

    use super::*;

    fn configs(objects: &[(&str, &str)]) -> Configs {
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
        objects.iter().map(object).collect()
    }

    #[test]
    fn what_changed_is_told() {
        let store = ConfigStore::default();
        assert!(store.current().now_or_never().is_none(), "not read yet is not missing");
        for (objects, expected) in [
            (&[("a", "1"), ("b", "1")][..], &["a", "b"][..]),
            (&[("a", "1"), ("b", "1")], &[]),
            (&[("a", "2"), ("b", "1")], &["a"]),
            (&[("b", "1"), ("c", "1")], &["a", "c"]),
            (&[], &["b", "c"]),
        ] {
            let changed = store.replace(configs(objects));
            assert_eq!(changed.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), expected);
            assert_eq!(*store.current().now_or_never().unwrap(), configs(objects));
        }
        assert!(!format!("{:?}", configs(&[("a", "hidden")])).contains("hidden"));
    }
}
