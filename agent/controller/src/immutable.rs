//! `immutable`: ConfigMaps and Secrets whose data stays as it was accepted.

use coracle_model::{ConfigKind, ConfigObject};

use crate::claims::{Defined, Faults, Owners};

/// Keeps the immutable objects there were before, as long as their manifest defines them, and says so where it
/// would have them changed.
pub(crate) fn keep(before: &Owners<ConfigObject>, now: &mut Owners<ConfigObject>, faults: &mut Faults) {
    for (key, old) in before.iter().filter(|(_, old)| old.object.immutable) {
        let Some(new) = now.get_mut(key).filter(|new| new.source == old.source) else { continue };
        let changed = changed_fields(&old.object, &new.object);
        if changed.is_empty() {
            continue;
        }
        let (source, what) = (&new.source, ConfigObject::describe(key));
        let messages = changed.into_iter().map(|field| {
            format!(
                "{source}: {what}: {field}: Forbidden: field is immutable when `immutable` is set; the object stays as \
                 it was accepted (to replace it, take it out of the manifests first)"
            )
        });
        faults.entry(new.source.clone()).or_default().extend(messages);
        *new = old.clone();
    }
}

fn changed_fields(old: &ConfigObject, new: &ConfigObject) -> Vec<&'static str> {
    let fields = [
        ("immutable", !new.immutable),
        ("data", new.data != old.data),
        ("binaryData", old.key.kind == ConfigKind::ConfigMap && new.binary_data != old.binary_data),
    ];
    fields.into_iter().filter(|(_, changed)| *changed).map(|(field, _)| field).collect()
}
