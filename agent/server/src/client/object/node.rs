//! The node, and what containers have of its devices.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Condition, Metadata};

objects! {
    /// `v1 Node`.
    Node {
        /// Which.
        metadata: Metadata,
        /// What it has, and how it is.
        status: NodeStatus,
        /// All of it, as it came.
        #[serde(skip)]
        object: Value,
    }

    /// `status` of a node.
    NodeStatus {
        /// Its addresses and names.
        addresses: Vec<NodeAddress>,
        /// All there is.
        capacity: BTreeMap<String, Value>,
        /// What pods may use together.
        allocatable: BTreeMap<String, Value>,
        /// How it is.
        conditions: Vec<Condition>,
        /// What it runs on.
        node_info: BTreeMap<String, Value>,
    }

    /// `status.addresses[]`.
    NodeAddress {
        /// `InternalIP`, `Hostname`.
        r#type: String,
        /// The address.
        address: String,
    }

    /// `allocatedResourcesStatus[]`.
    AllocatedResource {
        /// The resource.
        name: String,
        /// Its devices.
        resources: Vec<AllocatedDevice>,
    }

    /// `allocatedResourcesStatus[].resources[]`.
    AllocatedDevice {
        /// What its plugin knows it by.
        #[serde(rename = "resourceID")]
        resource_id: String,
        /// `Healthy`, `Unhealthy`, `Unknown`.
        health: String,
    }
}
