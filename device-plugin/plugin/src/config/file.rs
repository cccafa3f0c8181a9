//! What may stand in the file.

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct File {
    pub(super) resources: Vec<Resource>,
    pub(super) nvidia: Option<Nvidia>,
    pub(super) amd: Option<RenderNodes>,
    pub(super) intel: Option<RenderNodes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Resource {
    pub(super) name: Option<String>,
    pub(super) shares: Option<i64>,
    pub(super) devices: Vec<Device>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Device {
    pub(super) paths: Vec<DevicePath>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DevicePath {
    pub(super) path: Option<String>,
    pub(super) container_path: Option<String>,
    pub(super) permissions: Option<String>,
    pub(super) optional: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Nvidia {
    pub(super) enabled: Option<bool>,
    pub(super) mig_strategy: Option<String>,
    pub(super) device_list_strategy: Option<String>,
    pub(super) ignored_xids: Option<Vec<i64>>,
    pub(super) prepare_driver: Option<bool>,
    pub(super) sharing: Option<Sharing>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Sharing {
    pub(super) time_slicing: Option<TimeSlicing>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TimeSlicing {
    pub(super) rename_by_default: Option<bool>,
    pub(super) fail_requests_greater_than_one: Option<bool>,
    pub(super) resources: Vec<Replicas>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Replicas {
    pub(super) name: Option<String>,
    pub(super) replicas: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RenderNodes {
    pub(super) enabled: Option<bool>,
    pub(super) shares: Option<i64>,
}
