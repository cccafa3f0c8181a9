use coracle_model::Event;
use coracle_server::client::{EventOptions, WatchEventType};
use futures_util::StreamExt;
use jiff::Timestamp;

use crate::node::{back_off, node_ready};
use crate::{Served, within};

fn later(event: Event, count: u32) -> Event {
    Event { count, last_timestamp: Timestamp::from_second(60).unwrap(), ..event }
}

#[tokio::test]
async fn events_are_kubernetes_objects_in_order_of_their_last_time() {
    let served = Served::new();
    assert_eq!(served.client.events(&EventOptions::default()).await.unwrap(), []);
    served.node.happens(later(back_off(), 3));
    served.node.happens(node_ready());
    let events = served.client.events(&EventOptions::default()).await.unwrap();
    let [node, pod] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(pod.object["kind"], "Event");
    assert_eq!(pod.object["apiVersion"], "v1");
    assert_eq!(pod.object["metadata"]["name"], "web.1");
    assert_eq!(pod.object["metadata"]["namespace"], "default");
    assert_eq!(pod.object["metadata"]["resourceVersion"], "1");
    assert_eq!(pod.object["involvedObject"]["kind"], "Pod");
    assert_eq!(pod.object["involvedObject"]["namespace"], "default");
    assert_eq!(pod.object["involvedObject"]["fieldPath"], "spec.containers{web}");
    assert_eq!(pod.object["firstTimestamp"], "1970-01-01T00:00:00Z");
    assert_eq!(pod.object["lastTimestamp"], "1970-01-01T00:01:00Z");
    assert_eq!(pod.object["source"]["host"], "node");
    assert_eq!((pod.count, pod.r#type.as_str(), pod.reason.as_str()), (3, "Warning", "BackOff"));
    assert_eq!(node.object["metadata"]["namespace"], "default", "where client-go puts it");
    assert!(node.object["involvedObject"].get("namespace").is_none());
}

#[tokio::test]
async fn events_are_selected_as_the_api_server_selects_them() {
    let served = Served::new();
    let other = Event { name: "api.1".to_owned(), ..back_off() };
    let other = Event { reason: "Pulled".to_owned(), kind: node_ready().kind, ..other };
    let mut other = other;
    other.involved_object.name = "api,1=a\\".to_owned();
    other.involved_object.namespace = Some("other".to_owned());
    for event in [back_off(), other, node_ready()] {
        served.node.happens(event);
    }
    let all = EventOptions::default();
    let text = |text: &str| Some(text.to_owned());
    for (options, expected) in [
        (all.clone(), "web.1 api.1 node.1"),
        (EventOptions { namespace: text("default"), ..all.clone() }, "web.1 node.1"),
        (EventOptions { namespace: text("other"), ..all.clone() }, "api.1"),
        (EventOptions { kind: text("Node"), ..all.clone() }, "node.1"),
        (EventOptions { name: text("api,1=a\\"), ..all.clone() }, "api.1"),
        (EventOptions { kind: text("Pod"), name: text("web"), ..all.clone() }, "web.1"),
        (EventOptions { uid: text("none"), ..all.clone() }, ""),
        (EventOptions { r#type: text("Normal"), ..all.clone() }, "api.1 node.1"),
    ] {
        let events = served.client.events(&options).await.unwrap();
        let names: Vec<&str> = events.iter().map(|event| event.metadata.name.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{options:?}");
    }
    for (query, expected) in [
        ("fieldSelector=reason%3DPulled", "\"api.1\""),
        ("fieldSelector=color%3Dred", "field label not supported: color"),
        ("watch=perhaps", "BadRequest"),
    ] {
        let answer = served.get(&format!("/coracle/v1/events?{query}")).await;
        assert!(answer.contains(expected), "{query}: {answer}");
    }
}

#[tokio::test]
async fn a_watch_tells_what_happened_and_what_happens() {
    let served = Served::new();
    served.node.happens(back_off());
    served.node.happens(node_ready());
    let options = EventOptions { namespace: Some("default".to_owned()), ..EventOptions::default() };
    let mut watch = served.client.watch_events(&options).await.unwrap();
    let mut next = async || {
        let event = within(watch.next()).await.unwrap().unwrap();
        (event.kind, event.object.metadata.name, event.object.count)
    };
    assert_eq!(next().await, (WatchEventType::Added, "web.1".to_owned(), 3), "in order of what happened");
    assert_eq!(next().await, (WatchEventType::Added, "node.1".to_owned(), 1));
    let mut elsewhere = back_off();
    elsewhere.name = "elsewhere".to_owned();
    elsewhere.involved_object.namespace = Some("other".to_owned());
    served.node.happens(elsewhere);
    served.node.happens(later(back_off(), 4));
    assert_eq!(next().await, (WatchEventType::Modified, "web.1".to_owned(), 4));
    served.node.expires("node.1");
    assert_eq!(next().await, (WatchEventType::Deleted, "node.1".to_owned(), 1));
}
