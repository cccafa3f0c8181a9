use coracle_model::{PodUid, RestartPolicy};

use super::*;
use crate::inventory::Device;

const ANY: Topology =
    Topology { policy: TopologyPolicy::None, scope: TopologyScope::Container, nodes: NumaNodes::NONE };

fn resource() -> ExtendedResource {
    ExtendedResource::new("example.com/x").unwrap()
}

/// `a` to `h` as far as there are so many, `numa` of each.
fn devices(numa: &[&[i64]]) -> Devices {
    let names = ('a'..='z').map(String::from);
    names
        .zip(numa.iter().map(|nodes| Device { healthy: true, numa: nodes.iter().copied().collect() }))
        .collect()
}

fn container(name: &str, count: u64, restart: Option<RestartPolicy>) -> Container {
    let mut container = Container::new(Name::label(name).unwrap(), "i");
    container.resources.extended.insert(resource(), count);
    container.restart_policy = restart;
    container
}

/// `name=devices` of each container, or why there are none.
fn chosen(
    spec: &PodSpec,
    devices: &Devices,
    claims: &Claims,
    topology: Topology,
    preferences: &Preferences,
    prefers: bool,
) -> Result<String, String> {
    let offers = [(resource(), Offer { devices, prefers, pre_start: false })].into();
    match choose(spec, &offers, claims, topology, preferences) {
        Ok(Choice::Made(containers)) => {
            let texts = containers.iter().map(|(name, claims)| {
                let ids: String = claims[&resource()].devices.iter().map(String::as_str).collect();
                format!("{name}={ids}")
            });
            Ok(texts.collect::<Vec<_>>().join(" "))
        }
        Ok(Choice::Ask(question)) => Err(format!(
            "{} {} {} {}",
            question.container,
            question.available.concat(),
            question.must_include.concat(),
            question.size
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn pod(inits: &[(&str, u64, bool)], apps: &[(&str, u64)]) -> PodSpec {
    let mut spec = PodSpec::new(apps.iter().map(|(name, count)| container(name, *count, None)).collect());
    let init = |(name, count, sidecar): &(&str, u64, bool)| {
        container(name, *count, sidecar.then_some(RestartPolicy::Always))
    };
    spec.init_containers = inits.iter().map(init).collect();
    spec
}

#[test]
fn init_containers_devices_are_used_again_and_sidecars_are_kept() {
    let four = devices(&[&[], &[], &[], &[]]);
    let one = |inits: &[(&str, u64, bool)], apps: &[(&str, u64)]| {
        chosen(&pod(inits, apps), &four, &Claims::default(), ANY, &Preferences::new(), false)
    };
    assert_eq!(one(&[], &[("x", 2), ("y", 2)]).unwrap(), "x=ab y=cd");
    assert_eq!(one(&[("i", 4, false)], &[("x", 2), ("y", 2)]).unwrap(), "i=abcd x=ab y=cd");
    assert_eq!(one(&[("i", 1, false), ("j", 2, false)], &[("x", 3)]).unwrap(), "i=a j=ab x=abc");
    assert_eq!(one(&[("s", 1, true), ("i", 3, false)], &[("x", 3)]).unwrap(), "i=bcd s=a x=bcd");
    assert_eq!(one(&[("i", 2, false), ("s", 1, true)], &[("x", 2)]).unwrap(), "i=ab s=a x=bc");
    assert_eq!(one(&[("z", 0, false)], &[("x", 0)]).unwrap(), "");
    assert_eq!(
        one(&[("s", 2, true)], &[("x", 3)]).unwrap_err(),
        "Node didn't have enough resource: example.com/x, requested: 5, used: 0, capacity: 4"
    );
}

#[test]
fn what_others_have_and_what_is_unhealthy_is_not_given() {
    let mut four = devices(&[&[], &[], &[], &[]]);
    let mut claims = Claims::default();
    let Ok(Choice::Made(taken)) = choose(
        &pod(&[], &[("x", 1)]),
        &[(resource(), Offer { devices: &four, prefers: false, pre_start: false })].into(),
        &claims,
        ANY,
        &Preferences::new(),
    ) else {
        panic!("one of four is there");
    };
    claims.begin(&"u".parse::<PodUid>().unwrap(), taken);
    four.get_mut("b").unwrap().healthy = false;
    let next = |count| chosen(&pod(&[], &[("x", count)]), &four, &claims, ANY, &Preferences::new(), false);
    assert_eq!(next(2).unwrap(), "x=cd");
    assert_eq!(
        next(3).unwrap_err(),
        "Node didn't have enough resource: example.com/x, requested: 3, used: 1, capacity: 3"
    );
}

#[test]
fn a_plugin_is_asked_what_it_would_rather_give_and_cannot_give_what_is_not_there() {
    let four = devices(&[&[], &[], &[], &[]]);
    let spec = pod(&[("i", 1, false)], &[("x", 2)]);
    let with = |preferences: &Preferences| chosen(&spec, &four, &Claims::default(), ANY, preferences, true);
    assert_eq!(with(&Preferences::new()).unwrap_err(), "i abcd  1");
    let mut preferences = Preferences::new();
    let mut prefer = |name: &str, ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        preferences.insert((Name::label(name).unwrap(), resource()), ids);
        preferences.clone()
    };
    // What the init container had comes with the next question, and is kept whatever the answer.
    assert_eq!(with(&prefer("i", &["c"])).unwrap_err(), "x cabd c 2");
    assert_eq!(with(&prefer("x", &["d"])).unwrap(), "i=c x=cd");
    assert_eq!(with(&prefer("x", &["none", "a", "b", "d"])).unwrap(), "i=c x=ac");
    assert_eq!(with(&prefer("x", &[])).unwrap(), "i=c x=ac");
    // There is nothing to ask where there is nothing to choose.
    let all = pod(&[], &[("x", 4)]);
    assert_eq!(chosen(&all, &four, &Claims::default(), ANY, &Preferences::new(), true).unwrap(), "x=abcd");
}

#[test]
fn devices_are_taken_from_where_the_policy_says() {
    let four = devices(&[&[0], &[0, 1], &[1], &[1]]);
    let one = |policy, scope, apps: &[(&str, u64)], prefers| {
        let topology = Topology { policy, scope, nodes: [0, 1].into_iter().collect() };
        chosen(&pod(&[], apps), &four, &Claims::default(), topology, &Preferences::new(), prefers)
    };
    use TopologyPolicy::{BestEffort, Restricted, SingleNumaNode};
    use TopologyScope::{Container as Each, Pod};
    assert_eq!(one(SingleNumaNode, Each, &[("x", 2)], false).unwrap(), "x=ab");
    assert_eq!(one(SingleNumaNode, Each, &[("x", 3)], false).unwrap(), "x=bcd");
    assert_eq!(
        one(SingleNumaNode, Each, &[("x", 4)], false).unwrap_err(),
        AllocateError::Topology.to_string()
    );
    assert_eq!(one(Restricted, Each, &[("x", 4)], false).unwrap(), "x=abcd");
    // Each of its own node, or all of one.
    assert_eq!(one(SingleNumaNode, Each, &[("x", 2), ("y", 2)], false).unwrap(), "x=ab y=cd");
    assert_eq!(
        one(SingleNumaNode, Pod, &[("x", 2), ("y", 2)], false).unwrap_err(),
        AllocateError::Topology.to_string()
    );
    assert_eq!(one(SingleNumaNode, Pod, &[("x", 1), ("y", 2)], false).unwrap(), "x=c y=bd");
    assert_eq!(one(BestEffort, Pod, &[("x", 2), ("y", 2)], false).unwrap(), "x=ac y=bd");
    // The plugin chooses among those that are near.
    assert_eq!(one(SingleNumaNode, Each, &[("x", 1)], true).unwrap_err(), "x ab  1");
}
