//! Docker's [credential helpers]: `docker-credential-<name> get` with the registry on standard input.
//!
//! [credential helpers]: https://github.com/docker/docker-credential-helpers#development

use std::env;
use std::ffi::{OsStr, OsString};

use coracle_registry::Credential;
use serde::Deserialize;

use crate::CredentialError;
use crate::ask::{ask, failed};
use crate::docker::basic;
use crate::pattern::DOCKER_HUB;

/// How the name of each begins.
const PREFIX: &str = "docker-credential-";
/// What one says that has nothing for the registry. Some put more behind it.
const NOT_FOUND: &str = "credentials not found";
/// By what Docker Hub is known to them.
const HUB: &str = "https://index.docker.io/v1/";

/// What one answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Login {
    username: String,
    secret: String,
}

/// What the helper of this name, in one of the directories of `path`, has for a registry, if anything.
pub(crate) fn credential(
    path: &OsStr,
    name: &str,
    domain: &str,
) -> Result<Option<Credential>, CredentialError> {
    let program = format!("{PREFIX}{name}");
    let error = |problem: String| CredentialError::Helper {
        program: program.clone(),
        registry: domain.to_owned(),
        problem,
    };
    let found = coracle_program::find(&program, env::split_paths(path))
        .ok_or_else(|| error("there is no such program in PATH".to_owned()))?;
    let server = if domain == DOCKER_HUB { HUB } else { domain };
    let answer = ask(&found, &[OsString::from("get")], &[], server).map_err(error)?;
    if !answer.status.success() {
        let said = String::from_utf8_lossy(&answer.stdout);
        return if said.trim_start().starts_with(NOT_FOUND) { Ok(None) } else { Err(error(failed(&answer))) };
    }
    let login: Login = serde_json::from_slice(&answer.stdout)
        .map_err(|_| error("its answer is not JSON with a Username and a Secret".to_owned()))?;
    Ok(basic(login.username, login.secret))
}

#[cfg(test)]
mod tests {
    use coracle_registry::Secret;
    use tempfile::TempDir;

    use super::*;
    use crate::tests::program;

    fn ask_one(script: &str, domain: &str) -> Result<Option<Credential>, String> {
        let directory = TempDir::new().unwrap();
        program(directory.path(), "docker-credential-x", script);
        credential(directory.path().as_os_str(), "x", domain).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_helper_answers() {
        let script = r#"read -r server; echo "{\"ServerURL\":\"$server\",\"Username\":\"$1\",\"Secret\":\"$server\"}""#;
        let basic = |server: &str| {
            Some(Credential::Basic { username: "get".to_owned(), password: Secret::new(server) })
        };
        assert_eq!(ask_one(script, "reg.example:5000"), Ok(basic("reg.example:5000")));
        assert_eq!(ask_one(script, "docker.io"), Ok(basic("https://index.docker.io/v1/")));
        let token = r#"echo '{"ServerURL":"","Username":"<token>","Secret":"refresh"}'"#;
        assert_eq!(ask_one(token, "reg.example"), Ok(Some(Credential::Identity(Secret::new("refresh")))));
        let nothing = "echo credentials not found in native keychain; exit 1";
        assert_eq!(ask_one(nothing, "reg.example"), Ok(None));
        let empty = r#"echo '{"ServerURL":"","Username":"","Secret":""}'"#;
        assert_eq!(ask_one(empty, "reg.example"), Ok(None));
    }

    #[test]
    fn what_a_helper_fails_with_is_not_shown() {
        let of = |problem: &str| {
            Err(format!("the credential helper docker-credential-x, asked for reg.example: {problem}"))
        };
        assert_eq!(
            ask_one("echo hunter2; echo hunter2 >&2; exit 7", "reg.example"),
            of(
                "ended with exit code 7; what it says may be a secret and is not shown, so run it by hand to see why"
            )
        );
        let problem = "its answer is not JSON with a Username and a Secret";
        assert_eq!(ask_one("echo hunter2", "reg.example"), of(problem));
        let error = credential(OsStr::new("/none"), "x", "reg.example").unwrap_err().to_string();
        assert!(error.ends_with("there is no such program in PATH"), "{error}");
    }
}
