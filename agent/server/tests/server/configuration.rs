//! `/configz`.

use crate::Served;

#[tokio::test]
async fn the_configuration_is_shown_as_the_kubelets() {
    let answer = Served::new().get("/configz").await;
    assert!(answer.contains("content-type: application/json"), "{answer}");
    assert!(answer.ends_with(r#"{"kubeletconfig":{"podPidsLimit":100}}"#), "{answer}");
}
