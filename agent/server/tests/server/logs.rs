use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;

use coracle_server::client::LogOptions;
use futures_util::StreamExt;

use crate::node::{ended, pod, running, terminated, waiting};
use crate::{Served, refusal, within};

fn write(served: &Served, container: &str, attempt: u32, text: &str) {
    let pod = pod();
    let directory = served.directory.path().join(format!("logs/default_web_{}/{container}", pod.uid));
    fs::create_dir_all(&directory).unwrap();
    let mut file =
        OpenOptions::new().create(true).append(true).open(directory.join(format!("{attempt}.log"))).unwrap();
    for line in text.lines() {
        writeln!(file, "2026-01-01T00:00:00.000000001Z stdout F {line}").unwrap();
    }
}

async fn read(served: &Served, container: &str, options: &LogOptions) -> String {
    let mut pieces = served.client.logs("default", "web", container, options).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = within(pieces.next()).await {
        text.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn the_current_and_the_previous_run_are_told_apart() {
    let served = Served::new();
    let pod = pod();
    for attempt in 0..3 {
        write(&served, "web", attempt, &format!("run {attempt}\n"));
    }
    let (now, before) = (LogOptions::default(), LogOptions { previous: true, ..LogOptions::default() });

    served.node.put(&pod, vec![running("web", 0, None)]);
    assert_eq!(read(&served, "web", &now).await, "run 0\n");
    let status = refusal(served.client.logs("default", "web", "web", &before).await);
    assert_eq!(
        (status.code, status.message.as_str()),
        (400, "previous terminated container \"web\" in pod \"web\" not found")
    );

    served.node.put(&pod, vec![running("web", 2, Some(terminated(1)))]);
    assert_eq!(read(&served, "web", &now).await, "run 2\n");
    assert_eq!(read(&served, "web", &before).await, "run 1\n");

    // Waiting in a crash loop: the run that ended is both.
    served.node.put(&pod, vec![waiting("web", "CrashLoopBackOff", 2, Some(terminated(2)))]);
    assert_eq!(read(&served, "web", &now).await, "run 2\n");
    assert_eq!(read(&served, "web", &before).await, "run 2\n");

    // The next run is made and not started.
    served.node.put(&pod, vec![waiting("web", "ContainerCreating", 2, Some(terminated(1)))]);
    assert_eq!(read(&served, "web", &now).await, "run 1\n");
}

#[tokio::test]
async fn what_has_no_log_is_refused_in_kubernetes_words() {
    let served = Served::new();
    let options = LogOptions::default();
    let get = |container: &'static str| served.client.logs("default", "web", container, &options);
    assert_eq!(refusal(get("web").await).message, "pods \"web\" not found");
    served.node.put(&pod(), vec![waiting("web", "ImagePullBackOff", 0, None), running("side", 0, None)]);
    assert_eq!(refusal(get("nginx").await).message, "container nginx is not valid for pod web");
    assert_eq!(
        refusal(get("web").await).message,
        "container \"web\" in pod \"web\" is waiting to start: trying and failing to pull image"
    );
    let status = refusal(get("side").await);
    assert_eq!(status.code, 404, "{status}");
    assert!(status.message.contains("it was removed"), "{status}");
}

#[tokio::test]
async fn following_ends_with_the_container() {
    let served = Served::new();
    let pod = pod();
    write(&served, "web", 0, "one\n");
    served.node.put(&pod, vec![running("web", 0, None)]);
    let options = LogOptions { follow: true, timestamps: true, ..LogOptions::default() };
    let mut pieces = served.client.logs("default", "web", "web", &options).await.unwrap();
    let first = within(pieces.next()).await.unwrap().unwrap();
    assert_eq!(first, "2026-01-01T00:00:00.000000001Z one\n");
    write(&served, "web", 0, "two\n");
    served.node.put(&pod, vec![ended("web", 0)]);
    let second = within(pieces.next()).await.unwrap().unwrap();
    assert_eq!(second, "2026-01-01T00:00:00.000000001Z two\n");
    assert!(within(pieces.next()).await.is_none());
}

#[tokio::test]
async fn following_ends_when_the_pod_is_gone() {
    let served = Served::new();
    write(&served, "web", 0, "one\n");
    served.node.put(&pod(), vec![running("web", 0, None)]);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut pieces = served.client.logs("default", "web", "web", &options).await.unwrap();
    assert_eq!(within(pieces.next()).await.unwrap().unwrap(), "one\n");
    fs::remove_dir_all(served.directory.path().join("logs")).unwrap();
    served.node.change(|pods, _| pods.clear());
    assert!(within(pieces.next()).await.is_none());
}

#[tokio::test]
async fn a_log_replaced_by_a_link_is_not_read() {
    let served = Served::new();
    write(&served, "web", 0, "");
    served.node.put(&pod(), vec![running("web", 0, None)]);
    let log = served.directory.path().join(format!("logs/default_web_{}/web/0.log", pod().uid));
    fs::remove_file(&log).unwrap();
    let secret = served.directory.path().join("secret");
    fs::write(&secret, "2026-01-01T00:00:00Z stdout F secret\n").unwrap();
    symlink(&secret, &log).unwrap();
    assert_eq!(read(&served, "web", &LogOptions::default()).await, "");
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was() {
    let served = Served::new();
    write(&served, "web", 2, "one\n");
    served.node.put(&pod(), vec![running("web", 2, None)]);
    let options = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
    let from = |position| served.client.logs_from("default", "web", "web", &options, position);
    // The place is told before anything is written there.
    let mut pieces = from(None).await.unwrap();
    let first = within(pieces.next()).await.unwrap().unwrap();
    assert!(first.text.is_empty() && !first.gap, "{first:?}");
    drop(pieces);

    // Whatever became of the container by then, it is the same run that is gone on with.
    write(&served, "web", 2, "two\nthree\n");
    served.node.put(&pod(), vec![running("web", 3, Some(terminated(2)))]);
    let mut pieces = from(Some(&first.position)).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = within(pieces.next()).await {
        text.extend_from_slice(&piece.unwrap().text);
    }
    assert_eq!(String::from_utf8_lossy(&text), "two\nthree\n");

    // Another pod of that name has another log.
    let mut other = (*pod()).clone();
    other.uid = "other".parse().unwrap();
    served.node.change(|pods, _| pods.clear());
    served.node.put(&std::sync::Arc::new(other), vec![running("web", 2, None)]);
    assert!(refusal(from(Some(&first.position)).await).is_not_found());
    let answer = served.get("/containerLogs/default/web/web?position=x").await;
    assert!(answer.contains("position: Invalid value"), "{answer}");
}
