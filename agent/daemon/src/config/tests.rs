//! The configuration as a whole.

use std::collections::BTreeSet;

use super::table::{Default, FIELDS};
use super::*;

pub(super) fn load(text: &str, flags: &Overrides) -> Result<Config, String> {
    loaded(text, flags).map(|loaded| loaded.config)
}

fn loaded(text: &str, flags: &Overrides) -> Result<Loaded, String> {
    Loaded::of(Some(Path::new("/etc/c.yaml")), text.as_bytes(), flags).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_those_of_the_documentation() {
    for text in ["", "# nothing\n\n", "{}"] {
        let config = load(text, &Overrides::default()).unwrap();
        assert_eq!(config.root_dir, Path::new("/var/lib/coracle"));
        assert_eq!(config.socket(), Path::new("/run/coracle/coracle.sock"));
        assert_eq!(config.log_dir, Path::new("/var/log/pods"));
        assert_eq!(config.manifest_dir, Path::new("/etc/coracle/manifests"));
        assert_eq!(config.manifest_url, None);
        assert_eq!(config.cgroup_parent, Path::new("/"));
        assert_eq!(config.cgroup_driver, CgroupDriver::Cgroupfs);
        assert_eq!(config.pods_on_stop, PodsOnStop::Leave);
        assert_eq!(config.pod_pids_limit, None);
        assert_eq!((config.container_log_max_size, config.container_log_max_files), (10 << 20, 5));
        assert_eq!(config.seccomp_profile_root, Path::new("/var/lib/coracle/seccomp"));
        assert!(config.seccomp_default);
        assert_eq!(
            (config.cluster_dns, config.cluster_domain.as_str(), config.resolv_conf),
            (vec![], "", None)
        );
        assert!(config.shutdown_grace_periods.is_empty());
    }
}

#[test]
fn the_file_overrides_defaults_and_flags_override_the_file() {
    let text = "rootDir: /a\nstaticPodPath: /m\npodLogsDir: /l\ncgroupRoot: /x/\nnodeName: one\n\
                podPidsLimit: 100\ncontainerLogMaxSize: 1Mi\ncontainerLogMaxFiles: 2\nseccompDefault: false\n\
                clusterDNS: [10.96.0.10, fd00::a]\nclusterDomain: cluster.local\nresolvConf: /r\n\
                cgroupDriver: systemd\npodsOnStop: end\n";
    let config = load(text, &Overrides::default()).unwrap();
    assert_eq!(config.root_dir, Path::new("/a"));
    assert_eq!(config.manifest_dir, Path::new("/m"));
    assert_eq!(config.log_dir, Path::new("/l"));
    assert_eq!(config.cgroup_parent, Path::new("/x"));
    assert_eq!(config.cgroup_driver, CgroupDriver::Systemd);
    assert_eq!(config.pods_on_stop, PodsOnStop::End);
    assert_eq!(config.node_name, *"one");
    assert_eq!(config.pod_pids_limit, Some(100));
    assert_eq!((config.container_log_max_size, config.container_log_max_files), (1 << 20, 2));
    assert_eq!(config.seccomp_profile_root, Path::new("/a/seccomp"));
    assert!(!config.seccomp_default);
    let servers: [IpAddr; 2] = ["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
    assert_eq!(config.cluster_dns, servers);
    assert_eq!(config.cluster_domain, "cluster.local");
    assert_eq!(config.resolv_conf.as_deref(), Some(Path::new("/r")));

    let flags = Overrides {
        root_dir: Some("/b".into()),
        node_name: Some("two".into()),
        cgroup_parent: Some("/y".into()),
        ..Overrides::default()
    };
    let config = load(text, &flags).unwrap();
    assert_eq!(config.root_dir, Path::new("/b"));
    assert_eq!(config.node_name, *"two");
    assert_eq!(config.cgroup_parent, Path::new("/y"));
    assert_eq!(config.manifest_dir, Path::new("/m"));
}

#[test]
fn errors_say_where_and_what() {
    let cases = [
        ("rootDir: /a\nrotDir: /b\n", "/etc/c.yaml:2:1: rotDir: unknown field; did you mean \"rootDir\"?"),
        ("maxPod: 1\n", "/etc/c.yaml:1:1: maxPod: unknown field; did you mean \"maxPods\"?"),
        ("rootDir: [\n", "/etc/c.yaml:1:10: not valid YAML: "),
        ("[rootDir]\n", "/etc/c.yaml:1:1: must be a mapping of fields, not a list"),
        ("rootDir: /a\n---\nrunDir: /b\n", "/etc/c.yaml:3:1: a configuration is one document"),
        ("rootDir: a\n", "/etc/c.yaml:1:10: rootDir: Invalid value: \"a\": must be an absolute path"),
        ("cgroupRoot: /a/../b\n", "/etc/c.yaml:1:13: cgroupRoot: Invalid value"),
        (
            "cgroupDriver: none\n",
            "/etc/c.yaml:1:15: cgroupDriver: Unsupported value: \"none\": supported values: \"cgroupfs\", \"systemd\"",
        ),
        (
            "podsOnStop: kill\n",
            "podsOnStop: Unsupported value: \"kill\": supported values: \"leave\", \"end\"",
        ),
        ("podPidsLimit: 0\n", "/etc/c.yaml:1:15: podPidsLimit: Invalid value: 0: must be positive"),
        ("containerLogMaxFiles: 1\n", "containerLogMaxFiles: Invalid value: 1: must be greater than 1"),
        ("containerLogMaxFiles: few\n", "Invalid value: \"few\": must be an integer"),
        (
            "containerLogMaxSize: lots\n",
            "containerLogMaxSize: Invalid value: \"lots\": quantities must match",
        ),
        (
            "shutdownGracePeriod: 10s\nshutdownGracePeriodByPodPriority: [{priority: 1}]\n",
            "/etc/c.yaml:1:22: shutdownGracePeriod: Invalid value: \"10s\": may not be specified together",
        ),
        (
            "shutdownGracePeriodByPodPriority: [{prio: 1}]\n",
            "/etc/c.yaml:1:37: shutdownGracePeriodByPodPriority[0].prio: unknown field",
        ),
        ("nodeName: A_b\n", "nodeName: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain"),
        (
            "clusterDNS: [10.0.0.1, dns]\n",
            "/etc/c.yaml:1:24: clusterDNS[1]: Invalid value: \"dns\": must be an IP",
        ),
        (
            "clusterDomain: .local\n",
            "clusterDomain: Invalid value: \".local\": a lowercase RFC 1123 subdomain",
        ),
        (
            "allowedUnsafeSysctls: [net.*, vm.*]\n",
            "/etc/c.yaml:1:31: allowedUnsafeSysctls[1]: Invalid value: \"vm.*\": is not known to be namespaced",
        ),
        ("resolvConf: r\n", "resolvConf: Invalid value: \"r\": must be an absolute path"),
        ("resolvConf: ''\n", "resolvConf: Invalid value: \"\": must be an absolute path"),
        (
            "seccompDefault: maybe\n",
            "/etc/c.yaml:1:17: seccompDefault: Invalid value: \"maybe\": must be true or",
        ),
        (
            "rootDir: /a\nrootDir: /b\n",
            "/etc/c.yaml:2:1: rootDir: key \"rootDir\" is repeated: it stands already on line 1",
        ),
        (
            "kind: Pod\napiVersion: v1\n",
            "/etc/c.yaml:1:7: kind: Unsupported value: \"Pod\": supported values: \"Kube",
        ),
        (
            "kind: KubeletConfiguration\n",
            "/etc/c.yaml:1:1: apiVersion: Required value: where there is kind, must",
        ),
        (
            "maxPods: 30\n",
            "/etc/c.yaml:1:1: maxPods: not supported yet: the number of pods is not limited; leave",
        ),
        (
            "cpuManagerPolicy: static\n",
            "not supported yet: CPUs and memory are not pinned; leave it out or set it to none",
        ),
        ("kubeAPIQPS: many\n", "/etc/c.yaml:1:1: kubeAPIQPS: Invalid value: \"many\": must be a number"),
        ("syncFrequency: 5\n", "syncFrequency: Invalid value: 5: must be a duration such as 30s"),
    ];
    for (text, expected) in cases {
        let error = load(text, &Overrides::default()).unwrap_err();
        assert!(error.contains(expected), "{text:?} gave {error:?}, not {expected:?}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "rootDir: a\ncontainerLogMaxFiles: 1\nseccompDefault: 3\nevictionHard: {memory.available: 1Gi}\n\
                staticPodUrl: http://h/\nclusterDNS: [x, z]\n";
    let flags = Overrides { pod_cidr: Some("pods".to_owned()), ..Overrides::default() };
    insta::assert_snapshot!(load(text, &flags).unwrap_err());
}

/// What is refused, and what is said of the rest.
fn report(text: &str) -> String {
    match loaded(text, &Overrides::default()) {
        Ok(loaded) => {
            let warnings: Vec<_> = loaded.warnings.iter().map(|it| format!("warning: {it}\n")).collect();
            format!("accepted\n{}", warnings.concat())
        }
        Err(error) => error,
    }
}

#[test]
fn what_a_kubelet_takes_for_nothing_is_nothing() {
    for text in [
        "evictionHard: {imagefs.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 100%}\n",
        "evictionSoft: {}\n",
        "staticPodPath: ''\npodLogsDir: ''\ncgroupRoot: ''\n",
    ] {
        assert_eq!(report(text), "accepted\n", "{text}");
    }
    assert!(
        report("evictionHard: {memory.available: 0%, nodefs.available: 5%}\n").contains("not supported yet")
    );
    let config = load("staticPodPath: ''\n", &Overrides::default()).unwrap();
    assert_eq!(config.manifest_dir, load("", &Overrides::default()).unwrap().manifest_dir);
}

/// The files that installers of Kubernetes write. What is refused is said in such a way that leaving those lines out
/// makes a file of it that the node takes.
#[test]
fn files_of_kubelets() {
    let mut seen = String::new();
    for (name, text) in [
        ("kubeadm", include_str!("samples/kubeadm.yaml")),
        ("k3s", include_str!("samples/k3s.yaml")),
        ("EKS", include_str!("samples/eks.json")),
        ("GKE", include_str!("samples/gke.yaml")),
    ] {
        seen.push_str(&format!("--- {name}\n{}\n", report(text)));
        let Err(ConfigError::Invalid(invalid)) = Loaded::of(None, text.as_bytes(), &Overrides::default())
        else {
            continue;
        };
        let mut file = match settings::literal(text) {
            serde_json::Value::Object(file) => file,
            other => panic!("{other}"),
        };
        for diagnostic in &invalid.diagnostics {
            assert!(diagnostic.message.contains("leave it out"), "{diagnostic}");
            assert!(file.remove(&diagnostic.path).is_some(), "{diagnostic}");
        }
        let rest = serde_json::Value::Object(file).to_string();
        assert!(report(&rest).starts_with("accepted"), "{}", report(&rest));
    }
    insta::assert_snapshot!(seen);
}

/// The fields of `KubeletConfiguration` v1beta1 in Kubernetes 1.37.
const KUBELET_CONFIGURATION: &str = "enableServer staticPodPath podLogsDir syncFrequency fileCheckFrequency httpCheckFrequency staticPodURL \
     staticPodURLHeader address port readOnlyPort tlsCertFile tlsPrivateKeyFile tlsCipherSuites \
     tlsCurvePreferences tlsMinVersion rotateCertificates serverTLSBootstrap authentication authorization \
     registryPullQPS registryBurst imagePullCredentialsVerificationPolicy preloadedImagesVerificationAllowlist \
     eventRecordQPS eventBurst enableDebuggingHandlers enableContentionProfiling healthzPort healthzBindAddress \
     oomScoreAdj clusterDomain clusterDNS streamingConnectionIdleTimeout nodeStatusUpdateFrequency \
     nodeStatusReportFrequency nodeLeaseDurationSeconds imageMinimumGCAge imageMaximumGCAge \
     imageGCHighThresholdPercent imageGCLowThresholdPercent volumeStatsAggPeriod kubeletCgroups systemCgroups \
     cgroupRoot cgroupsPerQOS cgroupDriver cpuManagerPolicy singleProcessOOMKill cpuManagerPolicyOptions \
     cpuManagerReconcilePeriod draManagerReconcilePeriod memoryManagerPolicy topologyManagerPolicy \
     topologyManagerScope topologyManagerPolicyOptions qosReserved runtimeRequestTimeout hairpinMode maxPods \
     podCIDR podPidsLimit resolvConf runOnce cpuCFSQuota cpuCFSQuotaPeriod nodeStatusMaxImages maxOpenFiles \
     contentType kubeAPIQPS kubeAPIBurst serializeImagePulls maxParallelImagePulls evictionHard evictionSoft \
     evictionSoftGracePeriod evictionPressureTransitionPeriod evictionMaxPodGracePeriod evictionMinimumReclaim \
     mergeDefaultEvictionSettings podsPerCore enableControllerAttachDetach protectKernelDefaults \
     makeIPTablesUtilChains iptablesMasqueradeBit iptablesDropBit featureGates failSwapOn memorySwap \
     containerLogMaxSize containerLogMaxFiles containerLogMaxWorkers containerLogMonitorInterval \
     configMapAndSecretChangeDetectionStrategy systemReserved kubeReserved reservedSystemCPUs \
     showHiddenMetricsForVersion systemReservedCgroup kubeReservedCgroup enforceNodeAllocatable \
     allowedUnsafeSysctls volumePluginDir providerID kernelMemcgNotification logging enableSystemLogHandler \
     enableSystemLogQuery shutdownGracePeriod shutdownGracePeriodCriticalPods shutdownGracePeriodByPodPriority \
     crashLoopBackOff reservedMemory enableProfilingHandler enableDebugFlagsHandler seccompDefault \
     memoryThrottlingFactor memoryReservationPolicy registerWithTaints registerNode tracing \
     localStorageCapacityIsolation containerRuntimeEndpoint imageServiceEndpoint failCgroupV1 userNamespaces";

#[test]
fn every_field_of_the_kubelet_is_known_once() {
    let mut names: Vec<_> = decode::names().collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    let own = FIELDS.iter().filter(|field| field.kubelet).map(|field| field.name);
    let known: BTreeSet<_> = own.chain(kubelet::table::FIELDS.iter().map(|field| field.name)).collect();
    assert_eq!(known, KUBELET_CONFIGURATION.split(' ').collect());
}

/// What a test needs beside a field's example.
fn with_companions(field: &str, value: &str) -> String {
    let beside = match field {
        "staticPodURLHeader" => "staticPodURL: http://h/\n",
        "shutdownGracePeriodCriticalPods" => "shutdownGracePeriod: 60s\n",
        "imageCredentialProviderConfig" => "imageCredentialProviderBinDir: /b\n",
        "imageCredentialProviderBinDir" => "imageCredentialProviderConfig: /c\n",
        "preloadedImagesVerificationAllowlist" => {
            "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n"
        }
        _ => "",
    };
    format!("{beside}{field}: {value}\n")
}

#[test]
fn a_change_counts_when_the_table_says() {
    for field in FIELDS {
        let new = load(&with_companions(field.name, field.example), &Overrides::default()).unwrap();
        let without = with_companions(field.name, "");
        // A field that another needs cannot be left out alone.
        let old = load(&without, &Overrides::default())
            .unwrap_or_else(|_| load("", &Overrides::default()).unwrap());
        assert_ne!(old, new, "{}: the example is no change", field.name);
        let changed = changes(&old.settings, &new.settings);
        let merged = old.with_live_of(&new);
        match field.change {
            table::Change::Live => {
                assert!(changed.live.contains(&field.name), "{}: {changed:?}", field.name);
                assert_eq!(merged, new, "{}", field.name);
            }
            table::Change::Start => {
                assert!(changed.restart.contains(&field.name), "{}: {changed:?}", field.name);
                assert_eq!(merged, old, "{}", field.name);
            }
        }
    }
    let same = load("imageMinimumGCAge: 120s", &Overrides::default()).unwrap();
    let default = load("", &Overrides::default()).unwrap();
    assert_eq!(changes(&default.settings, &same.settings), Changes::default());
}

#[test]
fn the_file_of_defaults_changes_nothing() {
    let text = written::defaults();
    let loaded = loaded(&text, &Overrides::default()).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config, load("", &Overrides::default()).unwrap());
    for field in FIELDS {
        let commented = matches!(field.default, Default::Below(_) | Default::Nothing(_));
        let start = format!("\n{}{}: ", if commented { "#" } else { "" }, field.name);
        assert_eq!(text.matches(&start).count(), 1, "{}", field.name);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_shown_can_be_used_again() {
    for text in [
        "",
        include_str!("samples/kubeadm.yaml"),
        "serializeImagePulls: false\n",
        "serializeImagePulls: true\nrootDir: /a\n",
        "maxParallelImagePulls: 3\nshutdownGracePeriod: 1m30s\npodCIDR: 10.1.0.0/16\nnodeIP: 192.0.2.1\n",
        "registryConfigDirs: []\ncniBinDirs: []\nshutdownGracePeriodByPodPriority: [{priority: 1}]\n",
    ] {
        let config = load(text, &Overrides::default()).unwrap();
        let shown = serde_json::to_string(&config.settings.configz()).unwrap();
        let again = loaded(&shown, &Overrides::default()).unwrap();
        assert_eq!(again.warnings, [], "{shown}");
        let numbered = |config: Config| Config { settings: Settings::default(), ..config };
        assert_eq!(numbered(again.config), numbered(config), "{shown}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let text = "staticPodURL: https://me:secret@h/p?secret\nstaticPodURLHeader: {X: [secret, secret]}\n";
    let config = load(text, &Overrides::default()).unwrap();
    let shown = serde_json::to_value(config.settings.configz()).unwrap();
    assert_eq!(shown["staticPodURL"], "https://h/p");
    assert_eq!(shown["staticPodURLHeader"], serde_json::json!({"X": ["<masked>", "<masked>"]}));
    assert!(!format!("{config:?}{shown}").contains("secret"));
    // But that they are others is seen.
    let other = load(&text.replace("[secret, secret]", "[secret, other]"), &Overrides::default()).unwrap();
    assert_eq!(changes(&config.settings, &other.settings).live, ["staticPodURLHeader"]);
}

#[test]
fn who_has_given_a_setting_is_known() {
    let flags = Overrides { run_dir: Some("/r".into()), ..Overrides::default() };
    let loaded = loaded("\nrootDir: /a\nrunDir: /b\n", &flags).unwrap();
    let origin = |name: &str| loaded.origins[name].to_string();
    assert_eq!(origin("rootDir"), "/etc/c.yaml:2");
    assert_eq!(origin("runDir"), "--run-dir");
    assert_eq!(origin("staticPodPath"), "default");
    let run_dir = loaded.config.settings.shown(table::field("runDir").unwrap());
    assert_eq!(run_dir, Some(serde_json::json!("/r")));
}

/// Whatever the bytes are, they are read or refused.
#[test]
fn mangled_files_are_read_or_refused() {
    let samples = [
        written::defaults(),
        include_str!("samples/kubeadm.yaml").to_owned(),
        include_str!("samples/eks.json").to_owned(),
        FIELDS.iter().map(|field| format!("{}: {}\n", field.name, field.example)).collect(),
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..600 {
        let mut bytes = samples[round % samples.len()].clone().into_bytes();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.drain(at..(at + random.usize(..40)).min(bytes.len()))),
                2 => bytes.insert(at, *random.choice(b"-:{}[]'\"\n\t #&*!0").unwrap()),
                _ => bytes.extend_from_within(at..(at + 30).min(bytes.len())),
            }
            if bytes.is_empty() {
                break;
            }
        }
        if let Err(error) = Loaded::of(None, &bytes, &Overrides::default()) {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// `docs/configuration.md` has what the tables say. `CORACLE_BLESS=1` writes it.
#[test]
fn the_documentation_has_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut wanted = text.clone();
    for (mark, table) in [("fields", written::own_table()), ("kubelet", written::kubelet_table())] {
        let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->"));
        let (before, rest) = wanted.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        wanted = format!("{before}{begin}{table}{end}{after}");
    }
    if std::env::var_os("CORACLE_BLESS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert!(text == wanted, "docs/configuration.md is not as the tables have it; run with CORACLE_BLESS=1");
}

#[test]
fn a_named_file_must_be_there() {
    let flags = Overrides { config: Some("/nonexistent/c.yaml".into()), ..Overrides::default() };
    let error = Config::load(&flags).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the configuration file /nonexistent/c.yaml: "), "{error}");
}
