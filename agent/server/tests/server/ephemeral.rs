use coracle_model::PodPhase;
use serde_json::{Value, json};

use crate::node::{pod, running};
use crate::{Served, refusal};

#[tokio::test]
async fn an_ephemeral_container_is_added_and_shown() {
    let served = Served::new();
    let add = |container: Value| {
        let client = served.client.clone();
        async move { client.add_ephemeral("default", "web", &container).await }
    };
    let debugger = json!({"name": "debugger", "image": "busybox", "targetContainerName": "web"});
    let status = refusal(add(debugger.clone()).await);
    assert_eq!((status.code, status.message.as_str()), (404, "pods \"web\" not found"));

    served.node.put(&pod(), vec![running("web", 0, None)]);
    let shown = add(debugger.clone()).await.unwrap();
    let [container] = &shown.spec.ephemeral_containers[..] else { panic!("{:?}", shown.spec) };
    assert_eq!((container.name.as_str(), container.target_container_name.as_str()), ("debugger", "web"));
    assert_eq!(&served.client.pods().await.unwrap()[0].spec.ephemeral_containers[0], container);

    let taken = refusal(add(debugger).await);
    assert_eq!(
        (taken.code, taken.reason.as_str(), taken.message.as_str()),
        (
            422,
            "Invalid",
            "Pod \"web\" is invalid: spec.ephemeralContainers[1].name: Duplicate value: \"debugger\""
        )
    );
    let wrong = refusal(add(json!({"name": "", "ports": [{"containerPort": 80}]})).await);
    assert!(wrong.message.starts_with("Pod \"web\" is invalid: [spec.ephemeralContainers[1]."), "{wrong}");
    assert!(wrong.message.contains("cannot be set for an Ephemeral Container"), "{wrong}");
    assert_eq!(refusal(add(json!("no object")).await).code, 422);

    served.node.change(|pods, _| {
        let mut status = (*pods[0].status).clone();
        status.phase = PodPhase::Succeeded;
        pods[0].status = status.into();
    });
    let ended = refusal(add(json!({"name": "late", "image": "i"})).await);
    assert_eq!((ended.code, ended.reason.as_str()), (409, "Conflict"));
}
