//! What devices bring into a container ([`ContainerEdits`]), made ready before its specification is built.
//!
//! Everything of the host is looked at and opened here, once: what init is given are numbers and descriptors.

mod devices;
mod mounts;

use std::path::{Component, Path};

use coracle_cgroup::DeviceRule;
use coracle_init::hook::Hooks;
use coracle_model::{ContainerEdits, DeviceNode};
use oci_spec::runtime::LinuxDevice;

pub(crate) use mounts::PreparedMount;

use crate::error::Error;
use crate::hooks;
use crate::request::ExecUser;

/// What a container is given beside what its request says.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// Nodes that init makes.
    pub(crate) devices: Vec<LinuxDevice>,
    /// What may be done with them.
    pub(crate) rules: Vec<DeviceRule>,
    /// In the order of the edits.
    pub(crate) mounts: Vec<PreparedMount>,
    /// Programs of the host and of the container.
    pub(crate) hooks: Hooks,
}

/// Looks at and opens what the edits name. Blocks.
pub(crate) fn prepare(edits: &ContainerEdits) -> Result<Prepared, Error> {
    for hook in &edits.hooks {
        check_path("hook", &hook.path)?;
    }
    let (devices, rules) = devices::prepare(&edits.device_nodes)?;
    let mounts = edits.mounts.iter().map(mounts::prepare).collect::<Result<_, _>>()?;
    Ok(Prepared { devices, rules, mounts, hooks: hooks::sort(&edits.hooks) })
}

/// Variables in place of those of the same name, and behind the others.
pub(crate) fn merge_env(env: &mut Vec<(String, String)>, edits: &[(String, String)]) {
    for (name, value) in edits {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
}

/// Nodes that are the user's for want of another owner.
pub(crate) fn give_nodes(nodes: &mut [DeviceNode], user: &ExecUser) {
    for node in nodes.iter_mut().filter(|node| node.is_users) {
        node.uid = node.uid.or(Some(user.uid).filter(|uid| *uid != 0));
        node.gid = node.gid.or(Some(user.gid).filter(|gid| *gid != 0));
    }
}

/// Groups that are not there yet. The group of root is nothing a device brings (CDI, `additionalGids`).
pub(crate) fn merge_gids(gids: &mut Vec<u32>, edits: &[u32]) {
    for gid in edits.iter().filter(|gid| **gid != 0) {
        if !gids.contains(gid) {
            gids.push(*gid);
        }
    }
}

/// An edit that is not applied.
pub(crate) fn refuse(edit: &'static str, path: &str, why: impl Into<String>) -> Error {
    Error::Edit { edit, path: path.to_owned(), why: why.into() }
}

/// A path that says where it leads: absolute, without `..`.
fn check_path(edit: &'static str, path: &str) -> Result<(), Error> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !Path::new(path).is_absolute() {
        return Err(refuse(edit, path, "the path must be absolute"));
    }
    if path.contains('\0') || !Path::new(path).components().all(plain) {
        return Err(refuse(edit, path, "the path must not hold \"..\" or a zero byte"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_variable_of_an_edit_stands_in_the_place_of_the_specifications() {
        let mut env = pairs(&[("PATH", "/bin"), ("GPU", "all"), ("HOME", "/")]);
        merge_env(&mut env, &pairs(&[("GPU", "0"), ("NEW", "1"), ("NEW", "2")]));
        assert_eq!(env, pairs(&[("PATH", "/bin"), ("GPU", "0"), ("HOME", "/"), ("NEW", "2")]));
    }

    #[test]
    fn groups_come_once_and_never_roots() {
        let mut gids = vec![20, 44];
        merge_gids(&mut gids, &[0, 44, 109, 109]);
        assert_eq!(gids, [20, 44, 109]);
    }

    #[test]
    fn paths_say_where_they_lead() {
        check_path("mount", "/usr/lib/x.so").unwrap();
        for bad in ["", "usr", "/usr/../etc", "/a\0b"] {
            assert!(check_path("mount", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_node_that_nobody_is_said_to_own_is_the_users() {
        let node = |uid, is_users| DeviceNode {
            path: "/dev/a".to_owned(),
            host_path: String::new(),
            kind: None,
            permissions: "rw".to_owned(),
            file_mode: None,
            uid,
            gid: None,
            is_users,
        };
        let given = |node: DeviceNode, uid, gid| {
            let mut nodes = [node];
            give_nodes(&mut nodes, &ExecUser { uid, gid, additional_gids: Vec::new() });
            (nodes[0].uid, nodes[0].gid)
        };
        assert_eq!(given(node(None, true), 1000, 1001), (Some(1000), Some(1001)));
        assert_eq!(given(node(Some(5), true), 1000, 1001), (Some(5), Some(1001)));
        assert_eq!(given(node(None, true), 0, 0), (None, None), "root's is the host's");
        assert_eq!(given(node(None, false), 1000, 1001), (None, None));
    }
}
