//! What a registry says where it does not give what it was asked for.

use std::fmt;
use std::time::{Duration, SystemTime};

use coracle_fetch::{Response, retry_after};
use hyper::StatusCode;
use serde::Deserialize;

use crate::credential::Credential;
use crate::error::Error;

/// How much of an explanation is read, and for how long.
const MOST: u64 = 64 << 10;
const WAIT: Duration = Duration::from_secs(5);

/// How much of one is shown.
const SHOWN: usize = 300;

/// A registry's explanation, fit to be shown: one line, bounded, without what is secret. Empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(String);

/// The [errors] of a registry; a token service's `details`, or OAuth's `error`.
///
/// [errors]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    errors: Vec<One>,
    error: Option<String>,
    error_description: Option<String>,
    details: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct One {
    code: Option<serde_json::Value>,
    message: Option<String>,
}

// === impl Said ===

impl Said {
    /// Reads what a registry says. One that cannot be read has said nothing.
    async fn of(response: Response, credential: &Credential) -> Self {
        let bytes = response.whole(MOST, WAIT).await.unwrap_or_default();
        Self::in_body(&bytes, credential)
    }

    fn in_body(bytes: &[u8], credential: &Credential) -> Self {
        let Ok(body) = serde_json::from_slice::<Body>(bytes) else { return Self::default() };
        let mut parts = Vec::new();
        for one in body.errors.into_iter().take(3) {
            let code = one.code.map(|code| code.as_str().map_or_else(|| code.to_string(), str::to_owned));
            parts.push([code, one.message].into_iter().flatten().collect::<Vec<_>>().join(": "));
        }
        parts.extend([body.error, body.error_description, body.details].into_iter().flatten());
        parts.retain(|part| !part.is_empty());
        let mut text = parts.join(", ");
        for secret in credential.secrets() {
            text = text.replace(secret, "[hidden]");
        }
        Self(shown(&text))
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", {}", self.0) }
    }
}

/// Foreign text as part of a message: one line of some length.
pub(crate) fn shown(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        line.push('…');
    }
    line.trim().to_owned()
}

/// The error that a status is, and what it means for who asks with this credential.
pub(crate) async fn refusal(response: Response, credential: &Credential) -> Error {
    let status = response.status;
    let now = SystemTime::now();
    let retry_after = retry_after(&response.headers, now);
    let said = Said::of(response, credential).await;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::Unauthorized { status, said, advice: who_may(credential) }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => Error::NotFound {
            status,
            said,
            advice: "check the name and the tag; some registries say this also of what one may not see",
        },
        StatusCode::TOO_MANY_REQUESTS => {
            let until = retry_after
                .map(|wait| now.checked_add(wait).unwrap_or(now + Duration::from_secs(u32::MAX.into())));
            Error::TooManyRequests { status, said, until }
        }
        status => Error::Status { status, said, retry_after },
    }
}

fn who_may(credential: &Credential) -> &'static str {
    match credential {
        Credential::Anonymous => {
            "it was asked without credentials: name a Secret of type kubernetes.io/dockerconfigjson for this registry in \
             the pod's imagePullSecrets, or log in to it as root on the node, as with `docker login`"
        }
        _ => "the credentials it was shown do not suffice: check user, password and rights",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn what_is_said_is_one_short_line_without_secrets() {
        let credential = Credential::Basic { username: "me".to_owned(), password: Secret::new("hunter2") };
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[]}]}"#,
                ", UNAUTHORIZED: authentication required",
            ),
            (r#"{"errors":[{"code":1,"message":"a\n\u001b[1mb"}]}"#, ", 1: a  [1mb"),
            (r#"{"errors":[{"message":"wrong: hunter2"}]}"#, ", wrong: [hidden]"),
            (r#"{"error":"invalid_grant","error_description":"no"}"#, ", invalid_grant, no"),
            (r#"{"details":"incorrect username or password"}"#, ", incorrect username or password"),
            (r#"{"errors":"none"}"#, ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(Said::in_body(body.as_bytes(), &credential).to_string(), expected, "{body}");
        }
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(5000));
        assert_eq!(Said::in_body(long.as_bytes(), &credential).to_string().chars().count(), SHOWN + 3);
    }
}
