//! The files of a volume made of configuration.

use std::sync::Arc;

use coracle_model::{
    ConfigKind, ConfigObject, Container, DownwardFile, DownwardValue, KeyToPath, Name, ProjectedVolume,
    Projection,
};
use coracle_volume::{Payload, PayloadFile};

use super::{Sources, field, resource};

/// What the volume's sources give now. Everything that is wrong with them, in the form of Kubernetes'
/// aggregated errors.
pub(in super::super) fn payload(volume: &ProjectedVolume, sources: Sources<'_>) -> Result<Payload, String> {
    let mut files = Files { payload: Payload::default(), default_mode: volume.default_mode };
    let mut problems = Vec::new();
    for source in &volume.sources {
        match source {
            Projection::Object { kind, name, items, optional } => {
                if let Err(problem) = object(&mut files, (*kind, name), items, *optional, sources) {
                    problems.push(problem);
                }
            }
            Projection::Downward(list) => {
                let failed = list.iter().filter_map(|file| downward(&mut files, file, sources).err());
                problems.extend(failed.collect::<Vec<_>>());
            }
        }
    }
    match &problems[..] {
        [] => Ok(files.payload),
        [only] => Err(only.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}

struct Files {
    payload: Payload,
    default_mode: u32,
}

impl Files {
    fn add(&mut self, path: &str, content: Arc<[u8]>, mode: Option<u32>) -> Result<(), String> {
        let file = PayloadFile { content, mode: mode.unwrap_or(self.default_mode) };
        self.payload.insert(path, file).map_err(|error| error.to_string())
    }
}

fn object(
    files: &mut Files,
    (kind, name): (ConfigKind, &Name),
    items: &[KeyToPath],
    optional: bool,
    sources: Sources<'_>,
) -> Result<(), String> {
    let Some(object) = sources.object(kind, name, optional)? else { return Ok(()) };
    if items.is_empty() {
        return object.values().try_for_each(|(key, value)| files.add(key, Arc::clone(value), None));
    }
    for KeyToPath { key, path, mode } in items {
        match find(object, key) {
            Some(value) => files.add(path, Arc::clone(value), *mode)?,
            None if optional => {}
            None => {
                return Err(match kind {
                    ConfigKind::ConfigMap => format!("configmap references non-existent config key: {key}"),
                    ConfigKind::Secret => format!("references non-existent secret key: {key}"),
                });
            }
        }
    }
    Ok(())
}

fn find<'a>(object: &'a ConfigObject, key: &str) -> Option<&'a Arc<[u8]>> {
    object.data.get(key).or_else(|| object.binary_data.get(key))
}

fn downward(files: &mut Files, file: &DownwardFile, sources: Sources<'_>) -> Result<(), String> {
    let text = match &file.value {
        DownwardValue::Field(of_pod) => field::value(of_pod, sources)?,
        DownwardValue::Resource(of_container) => {
            let container: Option<&Container> =
                of_container.container.as_ref().and_then(|name| sources.pod.container(name.as_str()));
            let container = container.ok_or_else(|| {
                let name = of_container.container.as_ref().map_or("", Name::as_str);
                format!("container {name} not found")
            })?;
            resource::value(of_container, container, sources)?
        }
    };
    files.add(&file.path, Arc::from(text.into_bytes()), file.mode)
}
