//! A token service for `docker-registry`: [JSON Web Tokens] signed by a key that the registry trusts.
//!
//! [JSON Web Tokens]: https://distribution.github.io/distribution/spec/auth/jwt/

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, SigningKey};
use serde_json::json;

use super::{PASSWORD, USER};
use crate::registry::{Authority, Certificate, Registry, Reply, Request};

/// What the registry is called there.
pub(super) const SERVICE: &str = "test-registry";

/// What the service is called.
pub(super) const ISSUER: &str = "test-issuer";

/// How long a token is good for, in seconds.
const LIFE: u64 = 300;

/// A token service. Everybody may pull from `public/...`, and [`USER`] from everywhere.
pub struct Tokens {
    service: Registry,
    root: Authority,
    mint: Mint,
}

/// Makes tokens.
#[derive(Clone)]
pub(super) struct Mint(Arc<Certificate>);

// === impl Tokens ===

impl Tokens {
    /// Serves tokens on the loopback.
    pub fn start() -> Self {
        let root = Authority::new();
        let mint = Mint(Arc::new(root.certificate(&["tokens"])));
        let of_service = mint.clone();
        Self { service: Registry::start(move |request| of_service.answer(request)), root, mint }
    }

    /// Where they are asked for.
    pub fn realm(&self) -> String {
        format!("{}/token", self.service.url())
    }

    /// Who has asked for them.
    pub fn asked(&self) -> Vec<Request> {
        self.service.asked()
    }

    pub(super) fn root(&self) -> &Authority {
        &self.root
    }

    pub(super) fn mint(&self) -> Mint {
        self.mint.clone()
    }
}

// === impl Mint ===

impl Mint {
    fn answer(&self, request: &Request) -> Reply {
        let known = format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let known = match request.header("authorization") {
            None => false,
            Some(text) if text == known => true,
            Some(_) => return Reply::error("401 Unauthorized", "DENIED", "incorrect username or password"),
        };
        if request.query("service") != Some(SERVICE) {
            return Reply::error("400 Bad Request", "UNKNOWN", "no such service");
        }
        let scope = request.query("scope").unwrap_or_default().replace("%3A", ":").replace("%2F", "/");
        let parts: Vec<_> = scope.split(':').collect();
        let granted: &[(&str, &[&str])] = match parts.as_slice() {
            ["repository", repository, "pull"] if known || repository.starts_with("public/") => {
                &[(*repository, &["pull"])]
            }
            _ => &[],
        };
        super::super::registry::json(&json!({"token": self.token(granted), "expires_in": LIFE}))
    }

    /// A token that is good for these actions with these repositories.
    pub(super) fn token(&self, granted: &[(&str, &[&str])]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let access: Vec<_> = granted
            .iter()
            .map(|(name, actions)| json!({"type": "repository", "name": name, "actions": actions}))
            .collect();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(self.0.der())]});
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "jti": format!("{now}"),
            "exp": now + LIFE, "nbf": now - 10, "iat": now, "access": access,
        });
        let encode = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let key = KeyPair::try_from(self.0.key_der()).expect("it is a key");
        let signature = fixed(&key.sign(signed.as_bytes()).expect("the key signs"));
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An ECDSA signature of two numbers of 32 bytes (RFC 7518), from DER's of two integers (RFC 3279).
fn fixed(der: &[u8]) -> Vec<u8> {
    let integer = |from: usize| {
        let length = usize::from(der[from + 1]);
        (&der[from + 2..from + 2 + length], from + 2 + length)
    };
    let (r, next) = integer(2);
    let (s, _) = integer(next);
    let padded = |number: &[u8]| {
        let number = &number[number.len().saturating_sub(32)..];
        let mut bytes = vec![0; 32 - number.len()];
        bytes.extend(number);
        bytes
    };
    [padded(r), padded(s)].concat()
}
