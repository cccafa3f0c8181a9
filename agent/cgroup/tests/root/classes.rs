//! What the classes of pods weigh.

use coracle_cgroup::limits::{cpu_shares, cpu_weight};
use coracle_cgroup::{Kubepods, Limits, Mode};
use coracle_model::{Container, Name, PodSpec, PodUid, QosClass, ResourceList, Resources};

use super::support::{Subtree, driver, hosts, wait};

/// A burstable pod that asks for this.
fn asks_for(cpu: &str) -> PodSpec {
    let requests = ResourceList { cpu: Some(cpu.parse().unwrap()), ..ResourceList::default() };
    let resources = Resources { requests, ..Resources::default() };
    PodSpec::new(vec![Container { resources, ..Container::new(Name::label("c").unwrap(), "i") }])
}

/// The shares of a class, or its weight.
fn weight(kubepods: &Kubepods, class: QosClass) -> u64 {
    let pod = kubepods.pod(class, &"any".parse().unwrap()).cgroup().path();
    let relative = pod.parent().unwrap().strip_prefix("/").unwrap().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points =
        mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|it| it.split(' ').nth(4));
    let files = points.flat_map(|point| {
        ["cpu.shares", "cpu.weight"].map(|file| std::path::Path::new(point).join(&relative).join(file))
    });
    let text =
        files.filter_map(|file| std::fs::read_to_string(file).ok()).next().expect("a class has a weight");
    text.trim().parse().unwrap()
}

#[test]
fn burstable_pods_weigh_what_they_ask_for_together() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let kubepods = &subtree.kubepods;
        let wanted = |shares| if host.mode() == Mode::Unified { cpu_weight(shares) } else { shares };
        let burstable = || weight(kubepods, QosClass::Burstable);
        let [one, two, free]: [PodUid; 3] = ["one", "two", "free"].map(|uid| uid.parse().unwrap());

        kubepods.count(&one, &asks_for("250m"));
        kubepods.count(&two, &asks_for("1500m"));
        let best_effort = PodSpec::new(vec![Container::new(Name::label("c").unwrap(), "i")]);
        kubepods.count(&free, &best_effort);
        wait(kubepods.weigh()).unwrap();
        assert_eq!(burstable(), wanted(cpu_shares(1750)));
        assert_eq!(weight(kubepods, QosClass::BestEffort), wanted(2));
        assert_eq!(weight(kubepods, QosClass::Guaranteed), wanted(2048), "of all pods");

        // An agent that starts changes nothing before it knows which pods there are.
        let next = Kubepods::new(host.clone(), subtree.parent().as_ref(), driver()).unwrap();
        wait(next.ensure(2000)).unwrap();
        assert_eq!(burstable(), wanted(cpu_shares(1750)));
        next.count(&two, &asks_for("1500m"));
        wait(next.weigh()).unwrap();
        assert_eq!(burstable(), wanted(1536));

        assert!(next.discount(&two) && !next.discount(&free));
        wait(next.weigh()).unwrap();
        assert_eq!(burstable(), wanted(2), "no pod, no share");
        subtree.pod(&Limits::default());
        assert_eq!(burstable(), wanted(2));
    }
}
