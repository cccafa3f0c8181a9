//! What is a manifest, and what is not.

use serde_json::{Value, json};

use super::*;

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest('a'), "size": 7})
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIGURATIONS[0]),
        "layers": [descriptor(LAYERS[1])],
    })
}

fn index() -> Value {
    json!({"schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST)]})
}

/// A document with some of its fields set, or with `null` removed.
fn with(mut document: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        document[name] = value.clone();
        if value.is_null() {
            document.as_object_mut().unwrap().remove(name);
        }
    }
    document
}

fn parse(document: &Value, content_type: Option<&str>) -> Result<Document, Error> {
    let text = document.to_string();
    refuse_pages(content_type, text.as_bytes())?;
    Document::parse(text.as_bytes(), SaidToBe { content_type, media_type: None })
}

#[test]
fn manifests_and_indexes_are_told_apart() {
    let none = json!({"mediaType": null});
    for (document, content_type) in [
        (manifest(), None),
        (manifest(), Some(OCI_MANIFEST)),
        (manifest(), Some("application/vnd.oci.image.manifest.v1+JSON; charset=utf-8")),
        (manifest(), Some("application/json")),
        (with(manifest(), none.clone()), Some("application/octet-stream")),
        (with(manifest(), none), Some(DOCKER_MANIFEST)),
        (
            with(manifest(), json!({"mediaType": DOCKER_MANIFEST, "config": descriptor(CONFIGURATIONS[1])})),
            None,
        ),
        (with(manifest(), json!({"layers": []})), None),
    ] {
        let parsed = parse(&document, content_type);
        assert!(matches!(parsed, Ok(Document::Manifest { .. })), "{document} {content_type:?}: {parsed:?}");
    }
    for (document, content_type) in
        [(index(), None), (index(), Some(OCI_INDEX)), (index(), Some(DOCKER_LIST))]
    {
        let parsed = parse(&document, content_type);
        assert!(matches!(parsed, Ok(Document::Index(_))), "{document} {content_type:?}: {parsed:?}");
    }
}

#[test]
fn what_is_no_image_is_said() {
    let layer = |fields: Value| with(manifest(), json!({"layers": [with(descriptor(LAYERS[1]), fields)]}));
    for (document, content_type, expected) in [
        (with(manifest(), json!({"manifests": []})), None, "both `manifests` and `layers`"),
        (with(index(), json!({"config": descriptor(CONFIGURATIONS[0])})), None, "both `manifests`"),
        (
            manifest(),
            Some(OCI_INDEX),
            "Content-Type says application/vnd.oci.image.index.v1+json, and its mediaType",
        ),
        (manifest(), Some(DOCKER_MANIFEST), "says application/vnd.docker"),
        (with(index(), json!({"mediaType": OCI_MANIFEST})), None, "looks like the other kind"),
        (
            with(manifest(), json!({"mediaType": "application/x-other"})),
            None,
            "application/x-other, which is none of",
        ),
        (manifest(), Some("text/html; charset=utf-8"), "a web page (text/html)"),
        (json!({"schemaVersion": 1, "fsLayers": []}), None, "schema 1"),
        (
            with(manifest(), json!({"mediaType": null})),
            Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            "schema 1",
        ),
        (json!({}), None, "neither `layers` nor `manifests`"),
        (json!([]), None, "invalid"),
        (with(manifest(), json!({"layers": null})), None, "no `layers`"),
        (with(manifest(), json!({"config": null})), None, "no `config`"),
        (
            with(manifest(), json!({"config": descriptor("application/vnd.cncf.helm.config.v1+json")})),
            None,
            "an artifact of type \"application/vnd.cncf.helm.config.v1+json\"",
        ),
        (
            with(
                manifest(),
                json!({"config": descriptor("application/vnd.oci.empty.v1+json"), "artifactType": "text/x"}),
            ),
            None,
            "an artifact of type \"text/x\"",
        ),
        (
            layer(json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"})),
            None,
            "may not be distributed",
        ),
        (
            layer(json!({"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"})),
            None,
            "may not be distributed",
        ),
        (layer(json!({"urls": ["http://169.254.169.254/"]})), None, "names `urls`"),
        (
            layer(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"})),
            None,
            "which is not known",
        ),
        (layer(json!({"digest": "sha256:../../x"})), None, "\"sha256:../../x\" is not a digest"),
        (layer(json!({"size": -1})), None, "invalid value"),
        (layer(json!({"size": 1e30})), None, "invalid"),
        (
            with(manifest(), json!({"layers": vec![descriptor(LAYERS[1]); 501]})),
            None,
            "501 layers, of which overlayfs takes 500",
        ),
        (with(manifest(), json!({"layers": vec![descriptor(LAYERS[1]); 10_000]})), None, "10000 layers"),
    ] {
        let error = parse(&document, content_type).unwrap_err().to_string();
        let shown: String = document.to_string().chars().take(300).collect();
        assert!(error.contains(expected), "{shown}: {error}");
        assert!(error.len() < 600, "{error}");
    }
}

#[test]
fn what_leads_to_a_document_must_agree_with_it() {
    let text = manifest().to_string();
    let of = |media_type| {
        Document::parse(text.as_bytes(), SaidToBe { content_type: None, media_type: Some(media_type) })
    };
    of(OCI_MANIFEST).unwrap();
    of("").unwrap();
    assert!(of(DOCKER_MANIFEST).unwrap_err().to_string().contains("the index that leads to it says"));
}

#[test]
fn five_hundred_layers_are_an_image() {
    let document = with(manifest(), json!({"layers": vec![descriptor(LAYERS[0]); 500]}));
    let Ok(Document::Manifest { layers, .. }) = parse(&document, None) else { panic!() };
    assert_eq!(layers.len(), 500);
}
