//! `exec`: a program run in the container.

use coracle_model::{Container, EnvValue, expand};
use tokio::time::timeout_at;

use super::{Limit, Outcome};
use crate::node::{Node, Target};

pub(super) async fn check<N: Node>(
    node: &N,
    target: &Target,
    container: &Container,
    command: &[String],
    limit: Limit,
) -> Outcome {
    let command = expanded(command, container);
    match timeout_at(limit.deadline, node.exec(target, command.clone(), false)).await {
        Ok(Ok(ended)) if ended.code == 0 => Outcome::Success,
        Ok(Ok(ended)) => Outcome::Failure(String::from_utf8_lossy(&ended.output).into_owned()),
        Ok(Err(message)) => Outcome::Unknown(message),
        Err(_) => Outcome::Failure(timed_out(&command)),
    }
}

/// What the kubelet says of a program that took too long.
pub(crate) fn timed_out(command: &[String]) -> String {
    format!("command {:?} timed out", command.join(" "))
}

/// The command with `$(VAR)` references to variables that have a literal value, as the kubelet expands it:
/// of others it knows nothing here.
fn expanded(command: &[String], container: &Container) -> Vec<String> {
    let lookup = |name: &str| {
        // Of two of one name the later counts.
        container.env.iter().rev().find(|variable| variable.name == name).map(|variable| {
            match &variable.value {
                EnvValue::Literal(value) => value.as_str(),
                _ => "",
            }
        })
    };
    command.iter().map(|argument| expand(argument, lookup)).collect()
}

#[cfg(test)]
mod tests {
    use coracle_model::{EnvVar, Name, PodField};

    use super::*;

    #[test]
    fn only_literal_variables_are_known() {
        let mut container = Container::new(Name::label("main").unwrap(), "image");
        let variable = |name: &str, value| EnvVar { name: name.to_owned(), value };
        container.env = vec![
            variable("A", EnvValue::Literal("old".to_owned())),
            variable("B", EnvValue::Literal("$(A)".to_owned())),
            variable("C", EnvValue::Field(PodField::Name)),
            variable("A", EnvValue::Literal("new".to_owned())),
        ];
        let command = ["test", "$(A)", "$(B)", "x$(C)", "$(D)", "$$(A)"].map(str::to_owned);
        assert_eq!(expanded(&command, &container), ["test", "new", "$(A)", "x", "$(D)", "$(A)"]);
    }
}
