//! What a plugin answers to Allocate: checked, as edits of a container.

use std::collections::BTreeSet;

use coracle_device_api::deviceplugin as api;
use coracle_model::{ContainerEdits, DeviceNode, EditMount};
use serde::{Deserialize, Serialize};

/// How many things of each kind a plugin may bring into a container.
const MOST: usize = 4096;
/// How long each text may be.
const LONGEST: usize = 128 * 1024;

/// What a plugin brings into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// What it says itself. Annotations may name devices of the Container Device Interface as well (`cdi.k8s.io/`).
    pub edits: ContainerEdits,
    /// Devices of the Container Device Interface, by full name, to be looked up when the container is created.
    pub cdi: Vec<String>,
}

/// Checks an answer to a request for one container.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(response: api::AllocateResponse) -> Result<Answer, String> {
    let Ok([one]) = <[_; 1]>::try_from(response.container_responses) else {
        return Err("the plugin did not answer for one container, which it was asked for".to_owned());
    };
    let counts = [
        ("variables", one.envs.len()),
        ("mounts", one.mounts.len()),
        ("devices", one.devices.len()),
        ("annotations", one.annotations.len()),
        ("CDI devices", one.cdi_devices.len()),
    ];
    if let Some((what, count)) = counts.into_iter().find(|(_, count)| *count > MOST) {
        return Err(format!("the plugin answered {count} {what}, and may {MOST}"));
    }
    let mut edits = ContainerEdits::default();
    for (name, value) in one.envs {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("the plugin answered {name:?} as a variable"));
        }
        edits.env.push((text(name)?, text(value)?));
    }
    // The map of the message has no order, and the same answer is to be the same container.
    edits.env.sort();
    for mount in one.mounts {
        let options = ["rbind", if mount.read_only { "ro" } else { "rw" }].map(str::to_owned);
        edits.mounts.push(EditMount {
            host_path: path(mount.host_path, "a mount")?,
            container_path: path(mount.container_path, "a mount")?,
            fs_type: String::new(),
            options: options.to_vec(),
        });
    }
    for device in one.devices {
        let mut permissions: Vec<char> = device.permissions.chars().collect();
        permissions.sort_unstable();
        permissions.dedup();
        if permissions.is_empty() || !permissions.iter().all(|one| "mrw".contains(*one)) {
            return Err(format!(
                "the plugin answered {:?} as permissions of device {:?}, which are of r, w and m",
                device.permissions, device.host_path
            ));
        }
        let host_path = path(device.host_path, "a device")?;
        let container_path =
            if device.container_path.is_empty() { host_path.clone() } else { device.container_path };
        edits.device_nodes.push(DeviceNode {
            path: path(container_path, "a device")?,
            host_path,
            kind: None,
            permissions: ["r", "w", "m"].into_iter().filter(|one| device.permissions.contains(one)).collect(),
            file_mode: None,
            uid: None,
            gid: None,
            is_users: false,
        });
    }
    for (key, value) in one.annotations {
        edits.annotations.insert(text(key)?, text(value)?);
    }
    let cdi = one.cdi_devices.into_iter().map(|device| text(device.name)).collect::<Result<_, _>>()?;
    Ok(Answer { edits, cdi })
}

/// What several plugins bring into one container. Of two things for one place the first counts, as in the kubelet.
pub(crate) fn together<'a>(answers: impl Iterator<Item = &'a Answer>) -> Answer {
    let mut all = Answer::default();
    let (mut names, mut mounts, mut nodes, mut cdi) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for answer in answers {
        let edits = &answer.edits;
        all.edits.env.extend(edits.env.iter().filter(|(name, _)| names.insert(name)).cloned());
        let new = edits.mounts.iter().filter(|mount| mounts.insert(&mount.container_path));
        all.edits.mounts.extend(new.cloned());
        let new = edits.device_nodes.iter().filter(|node| nodes.insert(&node.path));
        all.edits.device_nodes.extend(new.cloned());
        for (key, value) in &edits.annotations {
            all.edits.annotations.entry(key.clone()).or_insert_with(|| value.clone());
        }
        all.cdi.extend(answer.cdi.iter().filter(|name| cdi.insert(*name)).cloned());
    }
    all
}

fn text(text: String) -> Result<String, String> {
    if text.len() > LONGEST {
        return Err(format!("the plugin answered a text of {} octets, and may {LONGEST}", text.len()));
    }
    Ok(text)
}

fn path(path: String, of: &str) -> Result<String, String> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4096 {
        return Err(format!("the plugin answered {path:?} as the path of {of}, which is no absolute path"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(change: impl FnOnce(&mut api::ContainerAllocateResponse)) -> api::AllocateResponse {
        let mut one = api::ContainerAllocateResponse::default();
        change(&mut one);
        api::AllocateResponse { container_responses: vec![one] }
    }

    fn device(host: &str, container: &str, permissions: &str) -> api::DeviceSpec {
        api::DeviceSpec {
            host_path: host.to_owned(),
            container_path: container.to_owned(),
            permissions: permissions.to_owned(),
        }
    }

    #[test]
    fn an_answer_becomes_edits() {
        let answer = read(response(|one| {
            one.envs.extend([("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1=1".to_owned())]);
            one.devices.push(device("/dev/fuse", "", "mrr"));
            one.devices.push(device("/dev/null", "/dev/zero", "wrm"));
            one.mounts.push(api::Mount {
                host_path: "/h".to_owned(),
                container_path: "/c".to_owned(),
                read_only: true,
            });
            one.annotations.insert("cdi.k8s.io/x".to_owned(), "v/c=1".to_owned());
            one.cdi_devices.push(api::CdiDevice { name: "v/c=2".to_owned() });
        }))
        .unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(answer.edits.env, [pair("A", "1=1"), pair("B", "2")]);
        let nodes = answer.edits.device_nodes.iter();
        let nodes: Vec<_> = nodes.map(|node| (&*node.path, &*node.host_path, &*node.permissions)).collect();
        assert_eq!(nodes, [("/dev/fuse", "/dev/fuse", "rm"), ("/dev/zero", "/dev/null", "rwm")]);
        assert_eq!(answer.edits.mounts[0].options, ["rbind", "ro"]);
        assert_eq!(answer.cdi, ["v/c=2"]);
        let twice = together([&answer, &answer].into_iter());
        assert_eq!(twice, answer);
    }

    #[test]
    fn an_answer_that_cannot_be_is_refused() {
        type Change = Box<dyn FnOnce(&mut api::ContainerAllocateResponse)>;
        let bad: Vec<Change> = vec![
            Box::new(|one| one.devices.push(device("dev/fuse", "/dev/fuse", "rw"))),
            Box::new(|one| one.devices.push(device("/dev/fuse", "fuse", "rw"))),
            Box::new(|one| one.devices.push(device("/dev/fuse", "", "rx"))),
            Box::new(|one| one.devices.push(device("/dev/fuse", "", ""))),
            Box::new(|one| one.devices.resize(MOST + 1, device("/dev/fuse", "", "r"))),
            Box::new(|one| one.mounts.push(api::Mount::default())),
            Box::new(|one| drop(one.envs.insert("A=B".to_owned(), String::new()))),
            Box::new(|one| drop(one.envs.insert("A".to_owned(), "\0".to_owned()))),
            Box::new(|one| drop(one.annotations.insert("a".to_owned(), "x".repeat(LONGEST + 1)))),
        ];
        for (at, change) in bad.into_iter().enumerate() {
            assert!(read(response(change)).is_err(), "{at}");
        }
        assert!(read(api::AllocateResponse::default()).is_err());
        let two = vec![api::ContainerAllocateResponse::default(); 2];
        assert!(read(api::AllocateResponse { container_responses: two }).is_err());
    }
}
