//! Checks against servers on this machine's loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod conditions;
mod faults;
mod https;
mod proxies;
mod redirects;
mod server;

use std::time::Duration;

use coracle_fetch::{Address, Answer, Error, Fetcher, Limits, Proxies, RequestHeaders, Validators};

/// For whatever must happen.
const SOON: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits { time: SOON, bytes: 1000 };

fn no_proxies() -> Proxies {
    Proxies::from_variables(|_| None).unwrap()
}

fn fetcher(url: &str, headers: &[(&str, &str)]) -> Fetcher {
    with(url, headers, no_proxies(), LIMITS)
}

fn with(url: &str, headers: &[(&str, &str)], proxies: Proxies, limits: Limits) -> Fetcher {
    let headers = RequestHeaders::new(headers.iter().copied()).unwrap();
    Fetcher::new(Address::parse(url).unwrap(), headers, proxies, "test/1", limits).unwrap()
}

/// A body that is new, and what it is known by.
#[track_caller]
fn changed(answer: Result<Answer, Error>) -> (String, Validators) {
    match answer.unwrap() {
        Answer::Changed { body, validators } => (String::from_utf8(body).unwrap(), validators),
        Answer::Unchanged => panic!("said to be unchanged"),
    }
}

async fn first(fetcher: &mut Fetcher) -> Result<Answer, Error> {
    fetcher.check(&Validators::default()).await
}
