//! The variables of a container, with their values.

use coracle_image::EnvEntry;
use coracle_model::{Container, EnvValue};
use coracle_pod::ports::Failure;

/// The container's `env` with the values its sources give now.
pub(super) fn resolve(container: &Container) -> Result<Vec<EnvEntry>, Failure> {
    let resolved = container.env.iter().map(|variable| match &variable.value {
        EnvValue::Literal(value) => {
            Ok(EnvEntry { name: variable.name.clone(), value: value.clone(), expand: true })
        }
        other => Err(Failure::new(
            "CreateContainerConfigError",
            format!("variable {} comes from {other:?}, which this node cannot read", variable.name),
        )),
    });
    resolved.collect()
}
