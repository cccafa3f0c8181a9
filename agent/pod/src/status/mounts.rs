//! `status.containerStatuses[].volumeMounts[]`.

use coracle_model::{Container, Pod, VolumeMountStatus, VolumeSource};

use crate::ports::ObservedContainer;

/// What a container has mounted: what its specification asks for, and what became of it.
pub(super) fn statuses(pod: &Pod, spec: &Container, container: &ObservedContainer) -> Vec<VolumeMountStatus> {
    let status = |mount: &coracle_model::VolumeMount| {
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
        // Nobody writes to an image, or to files of configuration, whatever the mount says.
        let is_never_written = volume.is_some_and(|volume| {
            matches!(volume.source, VolumeSource::Image { .. } | VolumeSource::Projected(_))
        });
        VolumeMountStatus {
            name: mount.name.to_string(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only || is_never_written,
            image_ref: container.volume_images.get(mount.name.as_str()).cloned(),
        }
    };
    spec.volume_mounts.iter().map(status).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use coracle_model::{
        HostPathType, ImagePullPolicy, MountPropagation, Name, RestartPolicy, Volume, VolumeMount,
    };

    use super::*;
    use crate::tests::values::{pod, running};

    #[test]
    fn of_an_image_it_says_which_and_that_nobody_writes_to_it() {
        let name = |text: &str| Name::label(text).unwrap();
        let mount = |of: &str, read_only| VolumeMount {
            name: name(of),
            mount_path: format!("/{of}"),
            sub_path: None,
            read_only,
            propagation: MountPropagation::None,
        };
        let host = VolumeSource::HostPath { path: PathBuf::from("/srv"), kind: HostPathType::Unset };
        let image = VolumeSource::Image {
            reference: "model:1".to_owned(),
            pull_policy: ImagePullPolicy::IfNotPresent,
        };
        let mut pod = pod("a", RestartPolicy::Always, &[], &["web"]);
        pod.spec.volumes =
            [("data", host), ("model", image)].map(|(of, source)| Volume { name: name(of), source }).into();
        pod.spec.containers[0].volume_mounts =
            vec![mount("data", false), mount("model", false), mount("data", true)];
        let mut container = running("web", 0);
        let shown = "localhost/model@sha256:00".to_owned();
        container.volume_images.insert("model".to_owned(), shown.clone());
        let found = statuses(&pod, &pod.spec.containers[0], &container);
        let found: Vec<_> =
            found.iter().map(|one| (one.mount_path.as_str(), one.read_only, one.image_ref.clone())).collect();
        assert_eq!(found, [("/data", false, None), ("/model", true, Some(shown)), ("/data", true, None)]);
    }
}
