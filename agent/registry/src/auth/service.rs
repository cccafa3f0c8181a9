//! Token services: [Docker's token specification], and [its OAuth 2 form].
//!
//! [Docker's token specification]: https://distribution.github.io/distribution/spec/auth/token/
//! [its OAuth 2 form]: https://distribution.github.io/distribution/spec/auth/oauth/

use std::time::{Duration, Instant};

use coracle_fetch::{
    Address, Call, Client, MOST_REQUESTS, Response, Tls, Waits, is_redirect, redirected, too_many_redirects,
};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::{Asking, Token, basic, bearer};
use crate::answer::refusal;
use crate::credential::Credential;
use crate::error::Error;
use crate::hosts::QUERY;
use crate::settings::Limits;

/// A token is some kilobytes.
const MOST: u64 = 1 << 20;

/// How long a token is good for whose service does not say: "no less than 60 seconds".
const DEFAULT_LIFE: u64 = 60;

/// So long before its end a token is replaced, or half its life before it if that is less: it is to last for the
/// request it is put on.
const MARGIN: Duration = Duration::from_secs(10);

/// Whatever service says a token is good for ever: it is asked for a new one after so long.
const LONGEST_LIFE: u64 = 3600;

/// Who asks, as the specification wants to know.
const CLIENT_ID: &str = "coracle";

/// A service's answer.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Asks for a token.
pub(super) async fn token(
    client: &Client,
    limits: &Limits,
    asking: Asking<'_>,
    realm: &str,
    service: Option<&str>,
    scope: &str,
) -> Result<Token, Error> {
    let own = Address::parse(&format!("https://{}/", asking.host.authority()))?;
    let address = address(asking, &own, realm)?;
    let same = own.host() == address.host();
    let tls = if same { &asking.host.tls } else { &asking.host.elsewhere };
    let waits = Waits { connect: asking.host.dial_timeout.unwrap_or(limits.connect), answer: limits.answer };
    let request = Request { client, tls, waits, limits, credential: asking.credential };
    let scopes: Vec<(&str, &str)> =
        scope.split(' ').filter(|one| !one.is_empty()).map(|one| ("scope", one)).collect();
    let service = service.map(|service| ("service", service));
    match asking.credential {
        Credential::Identity(secret) => {
            let form: Vec<_> = service
                .into_iter()
                .chain([("scope", scope), ("client_id", CLIENT_ID), ("grant_type", "refresh_token")])
                .chain([("refresh_token", secret.expose())])
                .collect();
            match request.post(&address, &form).await {
                // One that knows no OAuth. As containerd does, the token is shown as a password then.
                Err(Error::NotFound { .. }) => {}
                Err(Error::Status { status: StatusCode::METHOD_NOT_ALLOWED, .. }) => {}
                token => return token,
            }
            let query: Vec<_> = service.into_iter().chain(scopes).collect();
            request.get(&address, &query, Some(basic("", secret.expose())?)).await
        }
        Credential::Basic { username, password } => {
            let query: Vec<_> =
                service.into_iter().chain(scopes).chain([("account", username.as_str())]).collect();
            request.get(&address, &query, Some(basic(username, password.expose())?)).await
        }
        Credential::Anonymous | Credential::Bearer(_) => {
            let query: Vec<_> = service.into_iter().chain(scopes).collect();
            request.get(&address, &query, None).await
        }
    }
}

/// A realm, fit to be shown.
pub(super) fn shown(realm: &str) -> String {
    match Address::parse(realm) {
        Ok(address) => address.to_string(),
        Err(_) => "that the registry names".to_owned(),
    }
}

/// Where a realm is. A registry could name one that everybody on the way can read.
fn address(asking: Asking<'_>, own: &Address, realm: &str) -> Result<Address, Error> {
    let refuse = |reason: &str| Error::Challenge(format!("the realm of its challenge {reason}"));
    let address = Address::parse(realm).map_err(|error| refuse(&error.to_string()))?;
    if !address.is_https() && asking.https && !own.is_loopback() {
        return Err(refuse(&format!("is {address}, which is asked without TLS, unlike the registry itself")));
    }
    Ok(address)
}

/// How a service is asked.
struct Request<'a> {
    client: &'a Client,
    tls: &'a Tls,
    waits: Waits,
    limits: &'a Limits,
    credential: &'a Credential,
}

// === impl Request ===

impl Request<'_> {
    async fn get(
        &self,
        realm: &Address,
        query: &[(&str, &str)],
        shown: Option<HeaderValue>,
    ) -> Result<Token, Error> {
        let separator = if realm.target().contains('?') { '&' } else { '?' };
        let query = encoded(query);
        let mut address = match query.is_empty() {
            true => realm.clone(),
            false => Address::parse(&format!("{}{}{separator}{query}", realm.origin(), realm.target()))?,
        };
        let home = address.clone();
        let mut at_home = true;
        for _ in 0..MOST_REQUESTS {
            let mut headers = accepting_json();
            if let Some(shown) = shown.as_ref().filter(|_| at_home) {
                headers.insert(AUTHORIZATION, shown.clone());
            }
            let call = Call { method: Method::GET, address: &address, headers, body: Bytes::new() };
            let response = self.client.send(call, self.tls, self.waits).await?;
            if !is_redirect(response.status) {
                return self.read(response).await;
            }
            address = redirected(&address, response.status, &response.headers)?;
            at_home &= address.same_origin(&home);
        }
        Err(too_many_redirects(StatusCode::FOUND).into())
    }

    async fn post(&self, realm: &Address, form: &[(&str, &str)]) -> Result<Token, Error> {
        let mut headers = accepting_json();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let body = Bytes::from(encoded(form));
        let call = Call { method: Method::POST, address: realm, headers, body };
        // A form that holds a secret goes where it was meant to go, and no further.
        self.read(self.client.send(call, self.tls, self.waits).await?).await
    }

    async fn read(&self, response: Response) -> Result<Token, Error> {
        if response.status != StatusCode::OK {
            return Err(refusal(response, self.credential).await);
        }
        let asked = Instant::now();
        let bytes = response.whole(MOST, self.limits.document).await?;
        // What serde_json says of it could show some of it.
        let unusable = |reason: &str| Error::Document { document: "token", reason: reason.to_owned() };
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|_| unusable("the answer is not the JSON of one"))?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let token = filled(answer.token)
            .or(filled(answer.access_token))
            .ok_or_else(|| unusable("the answer has none"))?;
        let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE));
        Ok(Token { header: bearer(&token)?, until: asked + life.saturating_sub(MARGIN).max(life / 2) })
    }
}

fn accepting_json() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))])
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, QUERY);
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}
