//! Showing a registry who asks.

mod challenge;
mod service;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coracle_fetch::Client;
use hyper::header::HeaderValue;
use tokio::sync::Mutex as AsyncMutex;

pub(crate) use challenge::Challenge;

use crate::credential::Credential;
use crate::error::Error;
use crate::hosts::Host;
use crate::settings::Limits;

/// What registries have asked for, and the tokens that are good for now.
pub(crate) struct Authorizer {
    client: Client,
    limits: Limits,
    /// What a host has asked of who wants something of a repository, so that the next request need not be refused first.
    challenges: Mutex<HashMap<Want, Challenge>>,
    tokens: Mutex<HashMap<For, Arc<AsyncMutex<Option<Token>>>>>,
}

/// More than so many are forgotten: it costs a refused request to learn them again.
const MOST_KNOWN: usize = 1000;

/// Something of a host's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Want {
    /// The origin of the host's API.
    host: String,
    repository: String,
    credential: Credential,
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct For {
    host: String,
    realm: String,
    service: Option<String>,
    scope: String,
    credential: Credential,
}

/// A token, as a header.
#[derive(Clone)]
struct Token {
    header: HeaderValue,
    /// When it is no longer shown.
    until: Instant,
}

/// Who asks whom for what.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) host: &'a Host,
    /// Whether it is asked by HTTPS.
    pub(crate) https: bool,
    pub(crate) repository: &'a str,
    pub(crate) credential: &'a Credential,
}

/// A header to ask with.
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    /// Whether it was made just now: who refuses it would refuse the next one too.
    pub(crate) fresh: bool,
}

// === impl Authorizer ===

impl Authorizer {
    pub(crate) fn new(client: Client, limits: Limits) -> Self {
        Self { client, limits, challenges: Mutex::default(), tokens: Mutex::default() }
    }

    /// What to show without having been asked: what was asked for before.
    ///
    /// # Errors
    /// The token service's.
    pub(crate) async fn known(&self, asking: Asking<'_>) -> Result<Option<Authorization>, Error> {
        if let Credential::Bearer(token) = asking.credential {
            let header = bearer(token.expose())?;
            return Ok(Some(Authorization { header, fresh: true }));
        }
        let challenge = lock(&self.challenges).get(&asking.want()).cloned();
        match challenge {
            Some(challenge) => self.authorize(asking, &challenge, None).await,
            None => Ok(None),
        }
    }

    /// What to show to who asks for it so; `refused` is what did not suffice.
    ///
    /// # Errors
    /// The token service's.
    pub(crate) async fn answer(
        &self,
        asking: Asking<'_>,
        challenge: Challenge,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<Authorization>, Error> {
        let authorization = self.authorize(asking, &challenge, refused).await?;
        let mut challenges = lock(&self.challenges);
        if challenges.len() >= MOST_KNOWN {
            challenges.clear();
        }
        challenges.insert(asking.want(), challenge);
        Ok(authorization)
    }

    async fn authorize(
        &self,
        asking: Asking<'_>,
        challenge: &Challenge,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<Authorization>, Error> {
        let (realm, service, scope) = match (challenge, asking.credential) {
            (Challenge::Basic, Credential::Basic { username, password }) => {
                let header = basic(username, password.expose())?;
                return Ok(Some(Authorization { header, fresh: true }));
            }
            (Challenge::Basic, _) | (_, Credential::Bearer(_)) => return Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
        };
        let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", asking.repository));
        let Want { host, credential, .. } = asking.want();
        let key = For { host, realm: realm.clone(), service: service.clone(), scope, credential };
        let slot = self.slot(&key);
        // Whoever comes while it is asked for waits for that one.
        let mut slot = slot.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| token.until > Instant::now())
            && refused != Some(&token.header)
        {
            return Ok(Some(Authorization { header: token.header.clone(), fresh: false }));
        }
        let token =
            service::token(&self.client, &self.limits, asking, realm, service.as_deref(), &key.scope).await;
        let token = token
            .map_err(|source| Error::Token { realm: service::shown(realm), source: Box::new(source) })?;
        *slot = Some(token.clone());
        Ok(Some(Authorization { header: token.header, fresh: true }))
    }

    fn slot(&self, key: &For) -> Arc<AsyncMutex<Option<Token>>> {
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= MOST_KNOWN && !tokens.contains_key(key) {
            tokens.clear();
        }
        Arc::clone(tokens.entry(key.clone()).or_default())
    }
}

// === impl Asking ===

impl Asking<'_> {
    fn want(&self) -> Want {
        let scheme = if self.https { "https" } else { "http" };
        Want {
            host: format!("{scheme}://{}", self.host.authority()),
            repository: self.repository.to_owned(),
            credential: self.credential.clone(),
        }
    }
}

/// RFC 7617.
fn basic(username: &str, password: &str) -> Result<HeaderValue, Error> {
    secret(&format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}"))))
}

/// RFC 6750.
fn bearer(token: &str) -> Result<HeaderValue, Error> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Result<HeaderValue, Error> {
    let refuse = |_| Error::Challenge("a token holds what no header can".to_owned());
    let mut value = HeaderValue::from_str(text).map_err(refuse)?;
    value.set_sensitive(true);
    Ok(value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
