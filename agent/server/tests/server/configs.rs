//! ConfigMaps and Secrets.

use serde_json::{Value, json};

use crate::Served;

#[tokio::test]
async fn config_maps_are_shown_whole_and_secrets_without_their_values() {
    let served = Served::new();
    let maps = served.client.config_maps().await.unwrap();
    let [map] = maps.as_slice() else { panic!("{maps:?}") };
    let metadata = json!({"name": "web", "namespace": "shop"});
    assert_eq!(
        map.object,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": true,
            "data": {"key": "blue"}, "binaryData": {"logo": "/wA="}})
    );
    let secrets = served.client.secrets().await.unwrap();
    let [secret] = secrets.as_slice() else { panic!("{secrets:?}") };
    assert_eq!(
        secret.object,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "immutable": true,
            "data": {"key": Value::Null}, "type": "Opaque"})
    );
    assert_eq!(secret.data.len(), 1);
}
