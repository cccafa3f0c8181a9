//! `restartPolicy` and `restartPolicyRules` of a container.

use coracle_document::{Faults, Path};
use coracle_model::{RestartAction, RestartPolicy, RestartRule};
use k8s_openapi::api::core::v1;

use super::{collect, word};

const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;

/// `None` when something is wrong with either.
pub(super) fn convert(
    policy: Option<&str>,
    rules: &[v1::ContainerRestartRule],
    container: &Path<'_>,
    faults: &mut Faults,
) -> Option<(Option<RestartPolicy>, Vec<RestartRule>)> {
    let policy_path = container.child("restartPolicy");
    let policy = match policy {
        None => Some(None),
        Some(policy) => word(
            policy,
            &[
                ("Always", RestartPolicy::Always),
                ("Never", RestartPolicy::Never),
                ("OnFailure", RestartPolicy::OnFailure),
            ],
            &policy_path,
            faults,
        )
        .map(Some),
    };
    if policy == Some(None) && !rules.is_empty() {
        faults.required(&policy_path, "must specify restartPolicy when restart rules are used");
    }
    let list = container.child("restartPolicyRules");
    if rules.len() > MOST_RULES {
        faults.too_many(&list, rules.len(), MOST_RULES);
    }
    let rules = rules.iter().enumerate().map(|(index, rule)| convert_rule(rule, &list.index(index), faults));
    let rules = collect(rules);
    Some((policy?, rules?))
}

fn convert_rule(
    rule: &v1::ContainerRestartRule,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<RestartRule> {
    let v1::ContainerRestartRule { action, exit_codes } = rule;
    let action = word(
        action,
        &[("Restart", RestartAction::Restart), ("RestartAllContainers", RestartAction::RestartAllContainers)],
        &path.child("action"),
        faults,
    );
    let path = path.child("exitCodes");
    let Some(v1::ContainerRestartRuleOnExitCodes { operator, values }) = exit_codes else {
        faults.required(&path, "must be specified");
        return None;
    };
    let among = word(operator, &[("In", true), ("NotIn", false)], &path.child("operator"), faults);
    let values = values.as_deref().unwrap_or_default();
    if values.len() > MOST_CODES {
        faults.too_many(&path.child("values"), values.len(), MOST_CODES);
    }
    // Numbers that no exit code can be are taken: nothing ever matches them.
    Some(RestartRule { action: action?, among: among?, exit_codes: values.to_vec() })
}
