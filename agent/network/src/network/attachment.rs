//! What is on record of a pod's attachment to its network.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_cni::{AddResult, ConfigList, NetworkNamespace};
use coracle_model::PodUid;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::namespace::NamespaceId;

/// The one interface that a pod gets.
pub(super) const IFNAME: &str = "eth0";

/// Whose an attachment is: a sandbox, by its pod and how many that pod had before it. Its text is CNI's container id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AttachmentId {
    pub(super) uid: PodUid,
    pub(super) attempt: u32,
}

/// What was asked for, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attachment {
    /// Namespace and name of the pod, for messages; empty where it is not known.
    #[serde(default)]
    pub(super) pod: String,
    /// The network. Where it is not known, that of the configuration there is.
    #[serde(default, with = "list", skip_serializing_if = "Option::is_none")]
    pub(super) list: Option<Arc<ConfigList>>,
    /// `CNI_NETNS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) netns: Option<PathBuf>,
    /// What was at that path. Something else may be there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<NamespaceId>,
    /// `CNI_ARGS`.
    #[serde(default)]
    pub(super) args: Vec<(String, String)>,
    /// `runtimeConfig`, before any plugin has declared what it wants of it.
    #[serde(default)]
    pub(super) capabilities: Map<String, Value>,
    /// What the last ADD of the chain answered. Without one the attachment was not made, or not to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<AddResult>,
}

/// Keeps one copy of a network's configuration in memory for all its pods: by itself it is most of an attachment.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Pods have, nearly always, the network of the one before.
    latest: Mutex<Option<Arc<ConfigList>>>,
}

/// A network that a pod is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The network's name.
    pub network: String,
    /// The pod's addresses, in the order of the result.
    pub ips: Vec<IpAddr>,
}

// === impl Lists ===

impl Lists {
    /// The copy that there is, or this one.
    pub(super) fn shared(&self, list: Arc<ConfigList>) -> Arc<ConfigList> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(known) if *known == list => Arc::clone(known),
            _ => Arc::clone(latest.insert(list)),
        }
    }
}

// === impl AttachmentId ===

impl AttachmentId {
    /// The one of this container id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (uid, attempt) = text.rsplit_once('-')?;
        let id = Self { uid: uid.parse().ok()?, attempt: attempt.parse().ok()? };
        // There is one way to write it.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.uid, self.attempt)
    }
}

// === impl Attachment ===

impl Attachment {
    /// One of which nothing is known but that it may be there.
    pub(super) fn unknown(id: &AttachmentId) -> Self {
        Self {
            pod: String::new(),
            list: None,
            netns: None,
            namespace: None,
            args: args(id, None),
            capabilities: Map::new(),
            result: None,
        }
    }

    /// What the pod has by it, if it was made.
    pub(super) fn attached(&self) -> Option<Attached> {
        let network = self.list.as_ref().map(|list| list.name.clone()).unwrap_or_default();
        Some(Attached { network, ips: addresses(self.result.as_ref()?) })
    }

    /// The pod's namespace, as long as it is there: its path may lead to that of another process by now, or to the
    /// host's.
    pub(super) fn live_namespace(&self) -> Option<NetworkNamespace> {
        let path: &Path = self.netns.as_deref()?;
        let now = NamespaceId::of(path).ok()?;
        (Some(&now) == self.namespace.as_ref()).then(|| NetworkNamespace::new(path))
    }
}

/// The addresses of a pod's interface. One that belongs to no interface is the pod's: a result may tell addresses alone.
fn addresses(result: &AddResult) -> Vec<IpAddr> {
    let of_pod = |index: Option<usize>| match index.and_then(|index| result.interfaces.get(index)) {
        Some(interface) => interface.name == IFNAME && !interface.sandbox.is_empty(),
        None => true,
    };
    result.ips.iter().filter(|ip| of_pod(ip.interface)).map(|ip| ip.address.addr()).collect()
}

/// `CNI_ARGS`, as containerd gives them.
pub(super) fn args(id: &AttachmentId, pod: Option<&coracle_model::PodKey>) -> Vec<(String, String)> {
    let mut args = vec![("IgnoreUnknown".to_owned(), "1".to_owned())];
    if let Some(pod) = pod {
        args.push(("K8S_POD_NAMESPACE".to_owned(), pod.namespace.to_string()));
        args.push(("K8S_POD_NAME".to_owned(), pod.name.to_string()));
    }
    args.push(("K8S_POD_INFRA_CONTAINER_ID".to_owned(), id.to_string()));
    args.push(("K8S_POD_UID".to_owned(), id.uid.to_string()));
    args
}

/// A list as it stands in a file.
mod list {
    use std::sync::Arc;

    use coracle_cni::ConfigList;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(list: &Option<Arc<ConfigList>>, to: S) -> Result<S::Ok, S::Error> {
        list.as_ref().map(|list| list.to_json()).serialize(to)
    }

    pub(super) fn deserialize<'de, D>(from: D) -> Result<Option<Arc<ConfigList>>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let Some(json) = Option::<Value>::deserialize(from)? else { return Ok(None) };
        let list = ConfigList::parse(json.to_string().as_bytes()).map_err(D::Error::custom)?;
        Ok(Some(Arc::new(list)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_id_names_pod_and_attempt_in_one_way() {
        for text in ["a-0", "5b6f4d4e-12ab-17", "with.dots-4294967295", "a--1"] {
            assert_eq!(AttachmentId::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "a", "a-", "-1", "a-01", "a-+1", "a-4294967296", "a/b-0"] {
            assert_eq!(AttachmentId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn pods_of_one_network_share_its_configuration() {
        let list = |name: &str| {
            let json =
                serde_json::json!({"cniVersion": "1.1.0", "name": name, "plugins": [{"type": "bridge"}]});
            Arc::new(ConfigList::parse(json.to_string().as_bytes()).unwrap())
        };
        let lists = Lists::default();
        let first = lists.shared(list("one"));
        assert!(Arc::ptr_eq(&lists.shared(list("one")), &first));
        assert_eq!(lists.shared(list("two")).name, "two");
        assert_eq!(lists.shared(list("one")).name, "one");
    }

    #[test]
    fn only_addresses_of_the_pods_interface_are_the_pods() {
        let result = serde_json::json!({
            "interfaces": [
                {"name": "cni0"},
                {"name": "eth0"},
                {"name": "eth0", "sandbox": "/proc/1/ns/net"},
                {"name": "net1", "sandbox": "/proc/1/ns/net"},
            ],
            "ips": [
                {"address": "10.0.0.1/24", "interface": 0},
                {"address": "10.0.0.2/24", "interface": 1},
                {"address": "10.0.0.3/24", "interface": 2},
                {"address": "10.0.0.4/24", "interface": 3},
                {"address": "fd00::5/64"},
            ],
        });
        let result: AddResult = serde_json::from_value(result).unwrap();
        let expected: [IpAddr; 2] = ["10.0.0.3".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(addresses(&result), expected);
    }
}
