//! Images, volumes, records and events.

use std::sync::Arc;

use coracle_model::{Container, EventType, Pod, PodUid};
use tokio::time::sleep;

use super::super::values::image;
use super::{Fake, Told, Verb};
use crate::PodRecord;
use crate::ports::*;

impl Images for Fake {
    async fn ensure_image(&self, pod: &Arc<Pod>, container: &Container) -> Result<ImageRef, Failure> {
        self.call(Verb::Image, &container.name).await?;
        self.with(|state| state.host(&pod.uid).images.insert(container.name.to_string()));
        let message = format!("Container image \"{}\" already present on machine", container.image);
        let event =
            PodEvent { kind: EventType::Normal, reason: "Pulled", message, container: Some(&container.name) };
        Events::record(self, pod, event);
        Ok(image())
    }
}

impl Volumes for Fake {
    async fn ensure_volumes(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.call(Verb::Volumes, &pod.uid).await?;
        self.with(|state| state.host(&pod.uid).volumes = true);
        Ok(())
    }

    async fn refresh_volumes(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.call(Verb::RefreshVolumes, &pod.uid).await?;
        self.with(|state| state.check_alive(&pod.uid, Verb::RefreshVolumes));
        Ok(())
    }

    async fn over_limit(&self, pod: &Arc<Pod>) -> Result<Option<String>, Failure> {
        self.call(Verb::MeasureVolumes, &pod.uid).await?;
        let (takes, found) = self.with(|state| state.measuring.clone());
        sleep(takes).await;
        Ok(found)
    }

    async fn release_volumes(&self, pod: &PodUid) -> Result<(), Failure> {
        self.call(Verb::ReleaseVolumes, pod).await?;
        self.with(|state| {
            let host = state.host(pod);
            host.volumes = false;
            let quiet = host.observed == Observed::default();
            state.check(quiet, || format!("volumes of {pod} were released while it had a sandbox"));
        });
        Ok(())
    }

    async fn release_logs(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.call(Verb::ReleaseLogs, &pod.uid).await?;
        self.with(|state| state.host(&pod.uid).logs = false);
        Ok(())
    }
}

impl Records for Fake {
    async fn save(&self, record: &PodRecord) -> Result<(), Failure> {
        self.call(Verb::Save, &record.pod.uid).await?;
        self.with(|state| state.records.insert(record.pod.uid.clone(), record.clone()));
        Ok(())
    }

    async fn checkpoint(&self, record: &PodRecord) -> Result<(), Failure> {
        self.call(Verb::Checkpoint, &record.pod.uid).await?;
        self.with(|state| state.checkpoints.insert(record.pod.uid.clone(), record.clone()));
        Ok(())
    }

    async fn forget(&self, pod: &PodUid) -> Result<(), Failure> {
        self.call(Verb::Forget, pod).await?;
        self.with(|state| {
            state.records.remove(pod);
            state.checkpoints.remove(pod);
            let devices = state.inventory.given.contains_key(pod);
            state.check(!devices, || format!("{pod} was forgotten while it had devices"));
            let clean = state.pods.remove(pod).unwrap_or_default().is_clean();
            state.check(clean, || format!("{pod} was forgotten before all was released"));
        });
        Ok(())
    }
}

impl Events for Fake {
    fn record(&self, pod: &Pod, event: PodEvent<'_>) {
        let PodEvent { kind, reason, message, container } = event;
        let container = container.map(|name| {
            assert!(pod.all_containers().any(|one| one.name == *name), "{name} is no container of the pod");
            name.to_string()
        });
        self.with(|state| {
            state.events.push(Told {
                pod: pod.uid.clone(),
                kind,
                reason: reason.to_owned(),
                message,
                container,
            })
        });
    }
}
