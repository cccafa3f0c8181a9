//! Images: where they come from, how many are pulled at once, and which of them go.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use coracle_pull::access::VerificationPolicy;
use coracle_pull::{PullLimits, Rate};

use super::problems::{Giver, Problems};
use super::shutdown::duration;
use super::{File, Overrides, directories, directory, flag};
use crate::duration::go_text;

/// In the order in which a host's is looked for: containerd's layout, its own place, Docker's.
const REGISTRY_CONFIG_DIRS: [&str; 3] =
    ["/etc/coracle/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"];
/// How many images are pulled at once where the configuration does not say: unlike the kubelet's one, so that a
/// registry that is slow to give one pod its image does not keep the others from theirs.
const PARALLEL: NonZeroUsize = NonZeroUsize::new(5).unwrap();
/// The kubelet's defaults.
const QPS: u32 = 5;
const BURST: u32 = 10;
const MINIMUM_AGE: Duration = Duration::from_secs(120);
const HIGH: u8 = 85;
const LOW: u8 = 80;

/// What the node is told about images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImagesConfig {
    /// Directories with a `<host>/hosts.toml` each, or a host's certificates, in the order they are looked at.
    pub(crate) registry_config_dirs: Vec<PathBuf>,
    /// The kubelet's credential provider plugins: their configuration, and where their programs are.
    pub(crate) credential_providers: Option<CredentialProviders>,
    /// Archives in it are imported when the agent starts, and pinned.
    pub(crate) archive_dir: PathBuf,
    /// How many images are pulled at once, and how often a pull begins.
    pub(crate) pulls: PullLimits,
    /// Whom an image is given to that is there already.
    pub(crate) verification: VerificationPolicy,
    /// When images go.
    pub(crate) collection: CollectionConfig,
}

/// The kubelet's `--image-credential-provider-config` and `--image-credential-provider-bin-dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CredentialProviders {
    /// A `CredentialProviderConfig`, or a directory of them.
    pub(crate) config: PathBuf,
    pub(crate) bin_dir: PathBuf,
}

/// When images go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CollectionConfig {
    /// The least an image was unused before it goes.
    pub(crate) minimum_age: Duration,
    /// Past this it goes in any case; `None` for never.
    pub(crate) maximum_age: Option<Duration>,
    /// Per cent of the file system in use from which on images go; 100 for never.
    pub(crate) high: u8,
    /// Until no more than this is in use.
    pub(crate) low: u8,
}

// === impl ImagesConfig ===

impl ImagesConfig {
    /// What flags, and else the file, say of it.
    pub(super) fn combine(
        flags: &Overrides,
        file: &mut File,
        default_archive_dir: PathBuf,
        problems: &mut Problems,
    ) -> Self {
        let registry_config_dirs = match file.registry_config_dirs.take() {
            None => REGISTRY_CONFIG_DIRS.map(PathBuf::from).into(),
            Some(paths) => directories(paths, "registryConfigDirs", problems),
        };
        Self {
            registry_config_dirs,
            credential_providers: credential_providers(flags, file, problems),
            archive_dir: directory(None, file.image_archive_dir.take(), "imageArchiveDir", problems)
                .unwrap_or(default_archive_dir),
            pulls: PullLimits {
                at_once: at_once(file.serialize_image_pulls, file.max_parallel_image_pulls, problems),
                rate: rate(file.registry_pull_qps, file.registry_burst, problems),
            },
            verification: verification(
                file.image_pull_credentials_verification_policy.as_deref(),
                file.preloaded_images_verification_allowlist.take(),
                problems,
            ),
            collection: CollectionConfig::combine(file, problems),
        }
    }
}

fn credential_providers(
    flags: &Overrides,
    file: &mut File,
    problems: &mut Problems,
) -> Option<CredentialProviders> {
    const FLAGS: [&str; 2] = ["--image-credential-provider-config", "--image-credential-provider-bin-dir"];
    const FIELDS: [&str; 2] = ["imageCredentialProviderConfig", "imageCredentialProviderBinDir"];
    let given = [
        (&flags.image_credential_provider_config, file.image_credential_provider_config.take()),
        (&flags.image_credential_provider_bin_dir, file.image_credential_provider_bin_dir.take()),
    ];
    let mut paths = [None, None];
    let mut alone: Vec<(usize, Giver, String)> = Vec::new();
    for (index, (of_flag, field)) in given.into_iter().enumerate() {
        if let Some(path) = of_flag.as_ref().or(field.as_ref()) {
            let giver =
                of_flag.as_ref().map_or_else(|| Giver::field(FIELDS[index]), |_| Giver::Flag(FLAGS[index]));
            alone.push((index, giver, path.to_string_lossy().into_owned()));
        }
        paths[index] = directory(flag(of_flag, FLAGS[index]), field, FIELDS[index], problems);
    }
    if let [(index, giver, path)] = &alone[..] {
        let other = 1 - index;
        let message = format!("needs {} (or {}) beside it", FIELDS[other], FLAGS[other]);
        problems.invalid(giver, path, message);
    }
    let [config, bin_dir] = paths;
    Some(CredentialProviders { config: config?, bin_dir: bin_dir? })
}

fn at_once(serialize: Option<bool>, most: Option<i64>, problems: &mut Problems) -> Option<NonZeroUsize> {
    let giver = Giver::field("maxParallelImagePulls");
    let most = most.and_then(|count| {
        let valid = usize::try_from(count).ok().and_then(NonZeroUsize::new);
        if valid.is_none() {
            problems.invalid_number(&giver, count, "must be a positive number");
        }
        valid
    });
    match (serialize, most) {
        (Some(true), most) => {
            if let Some(most) = most.filter(|most| most.get() > 1) {
                let message = "cannot be larger than 1 unless serializeImagePulls is set to false";
                problems.invalid_number(&giver, most, message);
            }
            Some(NonZeroUsize::MIN)
        }
        (Some(false), most) => most,
        (None, most) => Some(most.unwrap_or(PARALLEL)),
    }
}

fn rate(qps: Option<i64>, burst: Option<i64>, problems: &mut Problems) -> Option<Rate> {
    let mut number = |field: &str, given: Option<i64>, default: u32| match given.map(u32::try_from) {
        None => Some(default),
        Some(Ok(number)) => Some(number),
        Some(Err(_)) => {
            let message = "must not be a negative number, nor larger than 4294967295";
            problems.invalid_number(&Giver::field(field), given.unwrap_or_default(), message);
            None
        }
    };
    let (per_second, burst) = (number("registryPullQPS", qps, QPS), number("registryBurst", burst, BURST));
    let rate = Rate { per_second: per_second?, burst: burst? };
    if rate.per_second > 0 && rate.burst == 0 {
        let message = "must be positive where registryPullQPS is: no pull could ever begin";
        problems.invalid_number(&Giver::field("registryBurst"), rate.burst, message);
    }
    (rate.per_second > 0).then_some(rate)
}

fn verification(
    policy: Option<&str>,
    allowlist: Option<Vec<String>>,
    problems: &mut Problems,
) -> VerificationPolicy {
    const POLICY: &str = "imagePullCredentialsVerificationPolicy";
    const ALLOWLIST: &str = "preloadedImagesVerificationAllowlist";
    const ALLOWLISTED: &str = "NeverVerifyAllowlistedImages";
    const PRELOADED: &str = "NeverVerifyPreloadedImages";
    let policy = policy.unwrap_or(PRELOADED);
    let list = allowlist.unwrap_or_default();
    let giver = Giver::field(ALLOWLIST);
    if !list.is_empty() && policy != ALLOWLISTED {
        let message = format!("Forbidden: can't be set if {POLICY} is not {ALLOWLISTED}");
        problems.say(&giver, message);
    }
    for (index, pattern) in list.iter().enumerate().filter(|(_, pattern)| !is_image_pattern(pattern)) {
        let message = "must be an image's name without tag and digest, or the beginning of names, such as \
                       registry.example.com/team/*";
        problems.invalid(&giver.item(index), pattern, message);
    }
    match policy {
        "NeverVerify" => VerificationPolicy::NeverVerify,
        PRELOADED => VerificationPolicy::NeverVerifyPreloadedImages,
        ALLOWLISTED => VerificationPolicy::NeverVerifyAllowlistedImages(list),
        "AlwaysVerify" => VerificationPolicy::AlwaysVerify,
        other => {
            let words = ["NeverVerify", PRELOADED, ALLOWLISTED, "AlwaysVerify"];
            problems.unsupported(&Giver::field(POLICY), other, &words);
            VerificationPolicy::default()
        }
    }
}

/// The kubelet's `validateImagePattern`: a repository, or a domain or path that ends in `/*`.
fn is_image_pattern(pattern: &str) -> bool {
    let plain = pattern.strip_suffix("/*").unwrap_or(pattern);
    if plain.is_empty() || plain.contains(['*', '@', ' ']) || plain.ends_with('/') {
        return false;
    }
    let (_, last) = plain.rsplit_once('/').unwrap_or(("", plain));
    // A colon is a port's before the first slash, and a tag's behind the last.
    let is_domain = pattern.len() > plain.len() && !plain.contains('/');
    if last.contains(':') && !is_domain {
        return false;
    }
    let name = if is_domain { format!("{plain}/x") } else { plain.to_owned() };
    name.parse::<coracle_model::ImageName>().is_ok()
}

// === impl CollectionConfig ===

impl CollectionConfig {
    fn combine(file: &File, problems: &mut Problems) -> Self {
        const MINIMUM: &str = "imageMinimumGCAge";
        const MAXIMUM: &str = "imageMaximumGCAge";
        const LOW_FIELD: &str = "imageGCLowThresholdPercent";
        let minimum_age = duration(MINIMUM, file.image_minimum_gc_age.as_deref(), problems)
            // As in the kubelet, none stands for the default.
            .filter(|age| !age.is_zero())
            .unwrap_or(MINIMUM_AGE);
        let maximum_age =
            duration(MAXIMUM, file.image_maximum_gc_age.as_deref(), problems).filter(|age| !age.is_zero());
        if maximum_age.is_some_and(|maximum| maximum <= minimum_age) {
            let message = format!("must be greater than imageMinimumGCAge, {}", go_text(minimum_age));
            let text = file.image_maximum_gc_age.as_deref().unwrap_or_default();
            problems.invalid(&Giver::field(MAXIMUM), text, message);
        }
        let mut per_cent = |field: &str, given: Option<i64>, default: u8| {
            let Some(number) = given else { return Some(default) };
            let valid = u8::try_from(number).ok().filter(|number| *number <= 100);
            if valid.is_none() {
                problems.invalid_number(&Giver::field(field), number, "must be between 0 and 100, inclusive");
            }
            valid
        };
        let high = per_cent("imageGCHighThresholdPercent", file.image_gc_high_threshold_percent, HIGH);
        let low = per_cent(LOW_FIELD, file.image_gc_low_threshold_percent, LOW);
        let (Some(high), Some(low)) = (high, low) else {
            return Self { minimum_age, maximum_age, high: HIGH, low: LOW };
        };
        if low >= high {
            let message = format!("must be less than imageGCHighThresholdPercent, {high}");
            problems.invalid_number(&Giver::field(LOW_FIELD), low, message);
        }
        Self { minimum_age, maximum_age, high, low }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    fn images(text: &str) -> Result<ImagesConfig, String> {
        load(text, &Overrides::default()).map(|config| config.images)
    }

    #[test]
    fn defaults() {
        let images = images("rootDir: /a").unwrap();
        assert_eq!(images.registry_config_dirs, REGISTRY_CONFIG_DIRS.map(PathBuf::from));
        assert_eq!(images.archive_dir, PathBuf::from("/a/archives"));
        assert_eq!(
            (images.pulls.at_once, images.pulls.rate),
            (Some(PARALLEL), Some(Rate { per_second: 5, burst: 10 }))
        );
        assert_eq!(images.verification, VerificationPolicy::NeverVerifyPreloadedImages);
        assert_eq!(images.credential_providers, None);
        let collection =
            CollectionConfig { minimum_age: Duration::from_secs(120), maximum_age: None, high: 85, low: 80 };
        assert_eq!(images.collection, collection);
    }

    #[test]
    fn pulls_are_limited_as_the_kubelets() {
        let parallel = |text: &str| images(text).unwrap().pulls.at_once.map(NonZeroUsize::get);
        assert_eq!(parallel("serializeImagePulls: true"), Some(1));
        assert_eq!(parallel("serializeImagePulls: false"), None);
        assert_eq!(parallel("serializeImagePulls: false\nmaxParallelImagePulls: 7"), Some(7));
        assert_eq!(parallel("maxParallelImagePulls: 7"), Some(7));
        assert_eq!(images("registryPullQPS: 0").unwrap().pulls.rate, None);
        let rate = images("registryPullQPS: 1\nregistryBurst: 2").unwrap().pulls.rate;
        assert_eq!(rate, Some(Rate { per_second: 1, burst: 2 }));
    }

    #[test]
    fn whom_images_are_given_to() {
        let of = |policy: &str| {
            images(&format!("imagePullCredentialsVerificationPolicy: {policy}")).unwrap().verification
        };
        assert_eq!(of("NeverVerify"), VerificationPolicy::NeverVerify);
        assert_eq!(of("AlwaysVerify"), VerificationPolicy::AlwaysVerify);
        let listed = images(
            "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n\
             preloadedImagesVerificationAllowlist: [a.example:5000/*, docker.io/library/nginx, a.example/x/*]",
        );
        let expected = ["a.example:5000/*", "docker.io/library/nginx", "a.example/x/*"];
        assert_eq!(
            listed.unwrap().verification,
            VerificationPolicy::NeverVerifyAllowlistedImages(expected.map(str::to_owned).into())
        );
    }

    #[test]
    fn providers_are_flags_as_the_kubelets() {
        let flags = Overrides {
            image_credential_provider_config: Some("/c".into()),
            image_credential_provider_bin_dir: Some("/b".into()),
            ..Overrides::default()
        };
        let expected = CredentialProviders { config: "/c".into(), bin_dir: "/b".into() };
        assert_eq!(load("", &flags).unwrap().images.credential_providers, Some(expected));
    }

    #[test]
    fn what_is_refused() {
        for (text, expected) in [
            (
                "registryConfigDirs: [x]",
                "registryConfigDirs[0]: Invalid value: \"x\": must be an absolute path",
            ),
            ("imageArchiveDir: x", "imageArchiveDir: Invalid value: \"x\": must be an absolute path"),
            (
                "maxParallelImagePulls: 0",
                "maxParallelImagePulls: Invalid value: 0: must be a positive number",
            ),
            (
                "serializeImagePulls: true\nmaxParallelImagePulls: 2",
                "maxParallelImagePulls: Invalid value: 2: cannot be larger than 1 unless serializeImagePulls",
            ),
            ("registryPullQPS: -1", "registryPullQPS: Invalid value: -1: must not be a negative number"),
            ("registryBurst: -1", "registryBurst: Invalid value: -1: must not be a negative number"),
            ("registryBurst: 0", "registryBurst: Invalid value: 0: must be positive where"),
            ("imageMinimumGCAge: 1x", "imageMinimumGCAge: Invalid value: \"1x\": must be a duration"),
            ("imageMaximumGCAge: -1h", "imageMaximumGCAge: Invalid value: \"-1h\": must be a duration"),
            (
                "imageMaximumGCAge: 2m",
                "imageMaximumGCAge: Invalid value: \"2m\": must be greater than imageMinimumGCAge, 2m0s",
            ),
            ("imageGCHighThresholdPercent: 101", "Invalid value: 101: must be between 0 and 100, inclusive"),
            ("imageGCLowThresholdPercent: 85", "Invalid value: 85: must be less than"),
            (
                "imagePullCredentialsVerificationPolicy: Some",
                "Unsupported value: \"Some\": supported values: \"NeverVerify\", ",
            ),
            ("preloadedImagesVerificationAllowlist: [a]", "can't be set if imagePullCredentialsVerification"),
            (
                "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n\
                 preloadedImagesVerificationAllowlist: [nginx:1]",
                "preloadedImagesVerificationAllowlist[0]: Invalid value: \"nginx:1\": must be an image's name",
            ),
            ("imageCredentialProviderConfig: /c", "needs imageCredentialProviderBinDir"),
            ("imageCredentialProviderBinDir: /c", "needs imageCredentialProviderConfig"),
        ] {
            let error = images(text).unwrap_err();
            assert!(error.contains(expected), "{text:?} gave {error:?}, not {expected:?}");
        }
    }
}
