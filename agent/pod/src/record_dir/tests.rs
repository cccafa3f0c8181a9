//! What is found on record.

use std::sync::Arc;

use coracle_model::RestartPolicy;
use tempfile::TempDir;

use super::*;
use crate::tests::values::{at, pod};

fn open(root: &TempDir, boot: &str) -> RecordDir {
    RecordDir::open(root.path().join("records"), root.path().join("checkpoints"), boot).unwrap()
}

fn record(uid: &str) -> PodRecord {
    let pod = Arc::new(pod(uid, RestartPolicy::Always, &["init"], &["web"]));
    PodRecord::new(pod, Some(Path::new("/m/a.yaml").into()), at(5))
}

#[tokio::test]
async fn a_record_is_kept_replaced_and_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let records = open(&root, "one");
    let mut record = record("a");
    records.save(&record).await.unwrap();
    record.streak_base.insert("web".to_owned(), 3);
    records.save(&record).await.unwrap();
    fs::write(root.path().join("records/.b.json.new"), "half").unwrap();
    assert_eq!(records.load().unwrap(), [Found { record: record.clone(), rebooted: false }]);
    assert!(!root.path().join("records/.b.json.new").exists());
    records.forget(&record.pod.uid).await.unwrap();
    records.forget(&record.pod.uid).await.unwrap();
    assert_eq!(records.load().unwrap(), []);
}

#[tokio::test]
async fn a_record_counts_until_a_reboot_and_the_checkpoint_after_it() {
    let root = tempfile::tempdir().unwrap();
    let records = open(&root, "one");
    let (old, mut new) = (record("a"), record("a"));
    new.restarting = true;
    records.checkpoint(&old).await.unwrap();
    records.save(&new).await.unwrap();
    let found = |records: &RecordDir| records.load().unwrap();
    assert_eq!(found(&records), [Found { record: new.clone(), rebooted: false }]);
    // The run directory may outlast a reboot, too, and no write to it was waited for.
    let next = open(&root, "two");
    assert_eq!(found(&next), [Found { record: old.clone(), rebooted: true }]);
    let checkpoint = root.path().join("checkpoints/a.json");
    let aside = root.path().join("aside");
    fs::rename(&checkpoint, &aside).unwrap();
    assert_eq!(found(&next), [Found { record: new.clone(), rebooted: true }]);
    fs::rename(&aside, &checkpoint).unwrap();
    fs::remove_dir_all(root.path().join("records")).unwrap();
    let next = open(&root, "two");
    assert_eq!(found(&next), [Found { record: old.clone(), rebooted: true }]);
    next.forget(&old.pod.uid).await.unwrap();
    assert_eq!(found(&next), []);
}

#[tokio::test]
async fn the_same_checkpoint_is_written_once() {
    use std::os::unix::fs::MetadataExt;
    let root = tempfile::tempdir().unwrap();
    let records = open(&root, "one");
    let inode = || fs::metadata(root.path().join("checkpoints/a.json")).unwrap().ino();
    records.checkpoint(&record("a")).await.unwrap();
    let before = inode();
    records.checkpoint(&record("a")).await.unwrap();
    assert_eq!(inode(), before);
}

#[tokio::test]
async fn a_record_of_before_there_were_checkpoints_is_one_of_this_boot() {
    let root = tempfile::tempdir().unwrap();
    let records = open(&root, "one");
    fs::write(root.path().join("records/a.json"), serde_json::to_vec(&record("a")).unwrap()).unwrap();
    assert_eq!(records.load().unwrap(), [Found { record: record("a"), rebooted: false }]);
}

/// Has a file of its own content where a record of this boot would be.
fn put(root: &TempDir, name: &str, bytes: &[u8]) {
    fs::write(root.path().join(name), bytes).unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_no_reason_to_know_nothing_of_a_pod() {
    let root = tempfile::tempdir().unwrap();
    let records = open(&root, "one");
    records.save(&record("a")).await.unwrap();
    records.save(&record("b")).await.unwrap();
    records.checkpoint(&record("b")).await.unwrap();
    // Whatever it is that the kernel says when it is asked for the content of "a".
    let path = root.path().join("records/a.json");
    let aside = root.path().join("a");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    let error = records.load().unwrap_err();
    assert!(matches!(&error, RecordError::Read { path: named, .. } if *named == path), "{error}");
    assert!(error.to_string().contains("the agent touches no pod before it knows them all"), "{error}");
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    let found = records.load().unwrap();
    assert_eq!(found, ["a", "b"].map(|uid| Found { record: record(uid), rebooted: false }));
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_read_matters_where_there_is_no_record() {
    let root = tempfile::tempdir().unwrap();
    let records = open(&root, "one");
    records.save(&record("a")).await.unwrap();
    fs::create_dir(root.path().join("checkpoints/a.json")).unwrap();
    assert_eq!(records.load().unwrap(), [Found { record: record("a"), rebooted: false }]);
    fs::remove_file(root.path().join("records/a.json")).unwrap();
    assert!(matches!(records.load(), Err(RecordError::Read { .. })));
}

#[tokio::test]
async fn a_record_of_another_version_is_left_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let records = open(&root, "one");
    for text in [r#"{"boot":"one"}"#, r#"{"boot":"one","pod":{"uid":"a"},"start_time":7}"#] {
        put(&root, "records/a.json", text.as_bytes());
        let error = records.load().unwrap_err();
        assert!(matches!(error, RecordError::Version { .. }), "{error}");
        assert!(root.path().join("records/a.json").exists());
    }
}

#[tokio::test]
async fn what_is_torn_or_anothers_is_set_aside_and_the_checkpoint_counts() {
    let root = tempfile::tempdir().unwrap();
    let records = open(&root, "one");
    let whole = serde_json::to_vec(&record("a")).unwrap();
    let cases: [&[u8]; 6] = [
        b"",
        &[0; 4096],
        &whole[..whole.len() / 2],
        b"[]",
        b"null",
        &serde_json::to_vec(&record("b")).unwrap(),
    ];
    for bytes in cases {
        records.checkpoint(&record("a")).await.unwrap();
        put(&root, "records/a.json", bytes);
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(records.load().unwrap(), [Found { record: record("a"), rebooted: false }], "{text}");
        assert_eq!(fs::read(root.path().join("records/a.set-aside")).unwrap(), bytes, "{text}");
        assert!(!root.path().join("records/a.json").exists(), "{text}");
        // A torn checkpoint is a pod nobody knows.
        put(&root, "checkpoints/a.json", bytes);
        assert_eq!(records.load().unwrap(), [], "{text}");
        assert_eq!(fs::read(root.path().join("checkpoints/a.set-aside")).unwrap(), bytes, "{text}");
    }
    // Its pod is taken up again under the same name.
    records.save(&record("a")).await.unwrap();
    assert_eq!(records.load().unwrap(), [Found { record: record("a"), rebooted: false }]);
}
