//! Which images need a look at who may use them.

use coracle_model::ImageName;

/// `imagePullCredentialsVerificationPolicy` of a KubeletConfiguration. An image counts as pulled by the node if a pull of
/// it is on record; what was imported, or came before the agent, is preloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VerificationPolicy {
    /// `NeverVerify`: every pod may use every image.
    NeverVerify,
    /// `NeverVerifyPreloadedImages`: every pod may use what the node did not pull.
    #[default]
    NeverVerifyPreloadedImages,
    /// `NeverVerifyAllowlistedImages`: every pod may use what `preloadedImagesVerificationAllowlist` names.
    NeverVerifyAllowlistedImages(Vec<String>),
    /// `AlwaysVerify`: no pod may use what it does not show credentials for.
    AlwaysVerify,
}

// === impl VerificationPolicy ===

impl VerificationPolicy {
    /// Whether a pod has to show something for this image.
    pub(super) fn must_verify(&self, name: &ImageName, pulled_by_node: bool) -> bool {
        match self {
            Self::NeverVerify => false,
            Self::NeverVerifyPreloadedImages => pulled_by_node,
            Self::NeverVerifyAllowlistedImages(patterns) => {
                !patterns.iter().any(|pattern| matches(pattern, name))
            }
            Self::AlwaysVerify => true,
        }
    }
}

/// A repository, or the beginning of repositories with `/*` at its end.
fn matches(pattern: &str, name: &ImageName) -> bool {
    let repository = name.repository();
    match pattern.strip_suffix('*') {
        Some(beginning) if beginning.ends_with('/') => repository.starts_with(beginning),
        _ => {
            pattern == repository || pattern.parse().is_ok_and(|of: ImageName| of.repository() == repository)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_the_kubelets() {
        let must = |policy: &VerificationPolicy, image: &str| {
            [true, false].map(|by_node| policy.must_verify(&image.parse().unwrap(), by_node))
        };
        assert_eq!(must(&VerificationPolicy::NeverVerify, "nginx"), [false, false]);
        assert_eq!(must(&VerificationPolicy::NeverVerifyPreloadedImages, "nginx"), [true, false]);
        assert_eq!(must(&VerificationPolicy::AlwaysVerify, "nginx"), [true, true]);
        let list = ["docker.io/library/nginx", "reg.example/team/*", "reg.example:5000/*"].map(str::to_owned);
        let listed = VerificationPolicy::NeverVerifyAllowlistedImages(list.to_vec());
        for (image, verified) in [
            ("nginx:1", false),
            ("nginx2", true),
            ("reg.example/team/x/y", false),
            ("reg.example/teams/x", true),
            ("reg.example/team", true),
            ("reg.example:5000/x", false),
            ("reg.example/x", true),
        ] {
            assert_eq!(must(&listed, image), [verified, verified], "{image}");
        }
    }
}
