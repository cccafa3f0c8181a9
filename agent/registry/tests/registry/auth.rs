//! Showing who asks, and whom that is not shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coracle_registry::{Credential, Error, Secret};
use coracle_tests::registry::{Body, Content, Image, Registry, Reply, Request, json};
use serde_json::json;

use super::{ANYBODY, client, pull};

const SCOPE: &str = "repository:app:pull";

fn basic() -> Credential {
    Credential::Basic { username: "me".to_owned(), password: Secret::new("pass:wörd") }
}

/// What [`basic`] is on the wire.
fn basic_header() -> String {
    format!("Basic {}", BASE64_STANDARD.encode("me:pass:wörd"))
}

fn content() -> Content {
    let mut content = Content::default();
    let image = content.image(&Image::small("one"));
    content.tag("app", "latest", &image);
    content
}

/// A token service that answers by a script, which is told how many tokens were asked for before.
fn service(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Registry {
    Registry::start(move |request| script(request, request.number))
}

/// A registry that lets in whoever shows a token for which `good` is true.
fn registry(realm: String, good: impl Fn(&str) -> bool + Send + Sync + 'static) -> Registry {
    let content = content();
    Registry::start(move |request| {
        match request.header("authorization").and_then(|text| text.strip_prefix("Bearer ")) {
            Some(token) if good(token) => content.answer(request),
            _ => Reply::unauthorized(&realm, SCOPE),
        }
    })
}

async fn pulled(registry: &Registry, credential: &Credential) -> Result<(), Error> {
    let result = pull(&client(), &format!("{}/app", registry.host()), credential).await;
    if let Err(error) = &result {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("wörd") && !text.contains("sesame"), "{text}");
    }
    result.map(drop)
}

#[tokio::test]
async fn anybody_is_given_a_token_once() {
    let service = service(|_, _| json(&json!({"token": "sesame"})));
    let registry = registry(format!("{}/token", service.url()), |token| token == "sesame");
    pulled(&registry, ANYBODY).await.unwrap();
    assert_eq!(
        service.lines(),
        ["GET /token?service=test-registry&scope=repository%3Aapp%3Apull"],
        "one for all requests"
    );
    assert_eq!(service.asked()[0].header("authorization"), None);
    assert_eq!(registry.asked().iter().filter(|one| one.header("authorization").is_none()).count(), 1);
}

#[tokio::test]
async fn a_password_is_for_the_token_service_alone() {
    let service = service(|request, _| match request.header("authorization") {
        Some(text) if text == basic_header() => json(&json!({"access_token": "sesame", "expires_in": 300})),
        _ => Reply::error("401 Unauthorized", "DENIED", "who are you?"),
    });
    let registry = registry(format!("{}/token?x=y", service.url()), |token| token == "sesame");
    pulled(&registry, &basic()).await.unwrap();
    assert_eq!(
        service.lines(),
        ["GET /token?x=y&service=test-registry&scope=repository%3Aapp%3Apull&account=me"]
    );
    let shown = registry.asked().iter().filter(|one| one.head.contains("Basic")).count();
    assert_eq!(shown, 0);

    let error = pulled(&registry, ANYBODY).await.unwrap_err();
    assert!(error.is_unauthorized());
    let expected = format!(
        "the token service {}/token: unauthorized (401 Unauthorized, DENIED: who are you",
        service.url()
    );
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(error.to_string().contains("imagePullSecrets"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_said_without_showing_it() {
    let service = service(|_, _| Reply::error("401 Unauthorized", "DENIED", "not pass:wörd"));
    let registry = registry(format!("{}/token", service.url()), |_| false);
    let error = pulled(&registry, &basic()).await.unwrap_err();
    assert!(error.is_unauthorized());
    assert!(
        error.to_string().contains("not [hidden]): the credentials it was shown do not suffice"),
        "{error}"
    );
    assert_eq!(service.asked().len(), 1, "it is not asked again");
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let service = service(|request, _| match request.method.as_str() {
        "POST" => json(&json!({"access_token": "sesame", "refresh_token": "other"})),
        _ => Reply::status("404 Not Found"),
    });
    let registry = registry(format!("{}/token", service.url()), |token| token == "sesame");
    pulled(&registry, &Credential::Identity(Secret::new("wörd"))).await.unwrap();
    let asked = service.asked();
    assert_eq!(
        String::from_utf8_lossy(&asked[0].body),
        "service=test-registry&scope=repository%3Aapp%3Apull&client_id=coracle&grant_type=refresh_token\
         &refresh_token=w%C3%B6rd"
    );
    assert_eq!(asked[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!((asked[0].target.as_str(), asked.len()), ("/token", 1));
}

#[tokio::test]
async fn a_service_without_oauth_is_shown_an_identity_token_as_a_password() {
    for status in ["404 Not Found", "405 Method Not Allowed"] {
        let service = service(move |request, _| match request.method.as_str() {
            "POST" => Reply::status(status),
            _ => json(&json!({"token": "sesame"})),
        });
        let registry = registry(format!("{}/token", service.url()), |token| token == "sesame");
        pulled(&registry, &Credential::Identity(Secret::new("wörd"))).await.unwrap();
        let expected = format!("Basic {}", BASE64_STANDARD.encode(":wörd"));
        assert_eq!(service.asked()[1].header("authorization"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn a_registry_token_is_shown_as_it_is() {
    let registry = registry("http://127.0.0.1:1/token".to_owned(), |token| token == "sesame");
    pulled(&registry, &Credential::Bearer(Secret::new("sesame"))).await.unwrap();
    assert!(registry.asked().iter().all(|one| one.header("authorization") == Some("Bearer sesame")));
    let error = pulled(&registry, &Credential::Bearer(Secret::new("wörd"))).await.unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
}

#[tokio::test]
async fn a_registry_may_want_the_password_itself() {
    let content = content();
    let registry = Registry::start(move |request| match request.header("authorization") {
        Some(text) if text == basic_header() => content.answer(request),
        _ => Reply::status("401 Unauthorized")
            .with("WWW-Authenticate", "Negotiate, Basic realm=\"the, realm\""),
    });
    pulled(&registry, &basic()).await.unwrap();
    let refused = registry.asked().iter().filter(|one| one.header("authorization").is_none()).count();
    assert_eq!(refused, 1, "the next requests are made with it at once");
    assert!(pulled(&registry, ANYBODY).await.unwrap_err().is_unauthorized());
    let other = Credential::Basic { username: "me".to_owned(), password: Secret::new("other") };
    let before = registry.asked().len();
    assert!(pulled(&registry, &other).await.unwrap_err().is_unauthorized());
    assert_eq!(registry.asked().len(), before + 2, "a password that is refused is not shown again");
}

#[tokio::test]
async fn a_challenge_that_is_not_understood_is_shown() {
    let registry =
        Registry::start(|_| Reply::status("401 Unauthorized").with("WWW-Authenticate", "Negotiate abc"));
    let error = pulled(&registry, &basic()).await.unwrap_err().to_string();
    assert!(error.contains("in no way that is understood how to show them: Negotiate abc"), "{error}");
}

#[tokio::test]
async fn a_token_that_has_ended_is_replaced_in_the_midst() {
    // Each token is good for two requests.
    let uses = Arc::new(AtomicUsize::new(0));
    let service = service(|_, number| json(&json!({"token": format!("sesame-{number}"), "expires_in": 300})));
    let registry = registry(format!("{}/token", service.url()), move |token| {
        let used = uses.fetch_add(1, Ordering::SeqCst);
        if token == format!("sesame-{}", used / 2) {
            return true;
        }
        uses.fetch_sub(1, Ordering::SeqCst);
        false
    });
    pulled(&registry, ANYBODY).await.unwrap();
    assert_eq!(service.asked().len(), 2);
}

#[tokio::test]
async fn tokens_are_shown_no_longer_than_they_are_good() {
    let service = service(|_, _| json(&json!({"token": "sesame", "expires_in": 0})));
    let registry = registry(format!("{}/token", service.url()), |_| true);
    pulled(&registry, ANYBODY).await.unwrap();
    assert_eq!(service.asked().len(), 3, "a manifest, a configuration and a layer");
}

#[tokio::test]
async fn no_token_is_good_enough_for_ever() {
    let service = service(|_, number| json(&json!({"token": format!("sesame-{number}")})));
    let registry = registry(format!("{}/token", service.url()), |_| false);
    let error = pulled(&registry, ANYBODY).await.unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
    assert_eq!((service.asked().len(), registry.asked().len()), (1, 2));
}

#[tokio::test]
async fn a_token_service_that_is_down_is_named() {
    let gone = service(|_, _| Reply::status("500"));
    let realm = format!("{}/token", gone.url());
    drop(gone);
    let down = registry(realm.clone(), |_| true);
    let error = pulled(&down, &basic()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("the token service {realm}: cannot connect to ")), "{error}");
    assert!(!error.is_unauthorized());

    let failing = service(|_, _| Reply::status("500 Internal Server Error"));
    let registry = registry(format!("{}/token", failing.url()), |_| true);
    let error = pulled(&registry, &basic()).await.unwrap_err().to_string();
    assert!(error.contains("/token: has answered with status 500"), "{error}");
    assert_eq!(failing.asked().len(), 3, "it is asked again");
}

#[tokio::test]
async fn a_token_service_that_fails_once_is_asked_again() {
    let service = service(|_, number| match number {
        0 => Reply::status("503 Service Unavailable"),
        _ => json(&json!({"token": "sesame"})),
    });
    let registry = registry(format!("{}/token", service.url()), |token| token == "sesame");
    pulled(&registry, ANYBODY).await.unwrap();
}

#[tokio::test]
async fn answers_that_are_no_tokens() {
    for (body, expected) in [
        ("{}", "the answer has none"),
        ("{\"token\":\"\"}", "the answer has none"),
        ("sesame", "not the JSON of one"),
        ("{\"token\":\"sesame\\nx\"}", "holds what no header can"),
    ] {
        let service = service(move |_, _| Reply::ok("application/json", body));
        let registry = registry(format!("{}/token", service.url()), |_| true);
        let error = pulled(&registry, ANYBODY).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{body}: {error}");
    }
    let service = service(|_, _| Reply::status("200 OK").body(Body::Endless));
    let registry = registry(format!("{}/token", service.url()), |_| true);
    let error = pulled(&registry, ANYBODY).await.unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
}

#[tokio::test]
async fn nothing_of_who_asks_follows_a_redirect() {
    let content = content();
    let all = content.clone();
    let elsewhere = Registry::start(move |request| all.answer(request));
    let storage = elsewhere.url();
    let service = service(|_, _| json(&json!({"token": "sesame"})));
    let realm = format!("{}/token", service.url());
    let registry = Registry::start(move |request| match request.header("authorization") {
        None => Reply::unauthorized(&realm, SCOPE),
        Some(_) if request.is_blob() && request.query("hop").is_none() => {
            // At home first: there it is shown.
            Reply::redirect(&format!("{}?hop=1", request.path()))
        }
        Some(_) if request.is_blob() => Reply::redirect(&format!("{storage}{}?signature=x", request.path())),
        Some(_) => content.answer(request),
    });
    pulled(&registry, &basic()).await.unwrap();
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|one| one.header("authorization").is_none()), "{asked:?}");

    // What leads away and back is no longer the registry's own wish.
    let back = format!("{}/v2/back", registry.url());
    let away = Registry::start(move |_| Reply::redirect(&back));
    let to = away.url();
    let registry = Registry::start(move |request| match request.path() {
        "/v2/back" => Reply::status("404 Not Found"),
        _ if request.header("authorization").is_some() => Reply::redirect(&to),
        _ => Reply::status("401 Unauthorized").with("WWW-Authenticate", "Basic"),
    });
    pulled(&registry, &basic()).await.unwrap_err();
    let back = registry.asked().into_iter().filter(|one| one.path() == "/v2/back");
    assert!(back.into_iter().all(|one| one.header("authorization").is_none()));
}

#[tokio::test]
async fn a_realm_that_redirects_does_not_pass_the_password_on() {
    let elsewhere = service(|_, _| json(&json!({"token": "sesame"})));
    let to = format!("{}/other", elsewhere.url());
    let service = service(move |_, _| Reply::redirect(&to));
    let registry = registry(format!("{}/token", service.url()), |token| token == "sesame");
    pulled(&registry, &basic()).await.unwrap();
    assert!(service.asked()[0].header("authorization").is_some());
    assert_eq!(elsewhere.asked()[0].header("authorization"), None);
}

#[tokio::test]
async fn what_one_may_see_is_not_shown_to_the_other() {
    let service = service(|request, _| match request.header("authorization") {
        Some(_) => json(&json!({"token": "sesame"})),
        None => json(&json!({"token": "anybody"})),
    });
    let registry = registry(format!("{}/token", service.url()), |token| token == "sesame");
    let client = client();
    let image = format!("{}/app", registry.host());
    pull(&client, &image, &basic()).await.unwrap();
    assert!(pull(&client, &image, ANYBODY).await.unwrap_err().is_unauthorized());
    assert_eq!(registry.asked().last().unwrap().header("authorization"), Some("Bearer anybody"));
}
