//! Requests to many hosts, whose connections are used again.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::connect::connect;
use crate::error::CONNECTING;
use crate::exchange::{driven, whole};
use crate::headers::user_agent_of;
use crate::pool::{Connection, Key, Pool};
use crate::proxy::Proxies;
use crate::tls::Tls;
use crate::{Address, Error};

/// What is read for the sake of a connection: more costs more than another one.
const SHORT: u64 = 64 << 10;
const SHORT_TIME: Duration = Duration::from_secs(1);

/// Asks hosts, by the node's proxies. A clone shares its connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    proxies: Proxies,
    user_agent: HeaderValue,
    pool: Pool,
}

/// One request. `Host`, `User-Agent` and what a proxy wants are added to its headers.
#[derive(Debug)]
pub struct Call<'a> {
    /// `GET`, `HEAD` or another.
    pub method: Method,
    /// What is asked for. A user and password in it are not sent.
    pub address: &'a Address,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; none if empty.
    pub body: Bytes,
}

/// How long the steps of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// To connect: look-up, proxy and TLS among it.
    pub connect: Duration,
    /// From the request to the head of its answer.
    pub answer: Duration,
}

/// An answer, whose body is on its way. Dropping it before the body has ended ends the connection.
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    /// Goes back to the pool when the body has ended.
    connection: Option<(Client, Key, Connection)>,
}

// === impl Client ===

impl Client {
    /// Asks as `user_agent`.
    ///
    /// # Errors
    /// [`Error::Header`] when the user agent cannot be one.
    pub fn new(proxies: Proxies, user_agent: &str) -> Result<Self, Error> {
        let user_agent = user_agent_of(user_agent)?;
        Ok(Self(Arc::new(Inner { proxies, user_agent, pool: Pool::default() })))
    }

    /// Asks; whatever the status, it is an answer.
    ///
    /// # Errors
    /// That there is no answer, or none in time.
    pub async fn send(&self, call: Call<'_>, tls: &Tls, waits: Waits) -> Result<Response, Error> {
        let key = Key::of(call.address, tls);
        // A connection that has waited may have been closed by the host in the meantime. That says nothing of the host,
        // so another is taken, and a new one at last.
        while let Some(connection) = self.0.pool.take(&key) {
            match self.ask(&call, &key, connection, waits).await {
                Err(Error::Http(_)) => {}
                answer => return answer,
            }
        }
        let within = |what, wait| move |_| Error::Slow { what, wait };
        let connecting = connect(call.address, &self.0.proxies, tls);
        let connected =
            timeout(waits.connect, connecting).await.map_err(within(CONNECTING, waits.connect))??;
        let (sender, connection) = http1::handshake(TokioIo::new(connected.stream)).await?;
        let connection = Connection { sender, by_proxy: connected.by_proxy, _driven: driven(connection) };
        self.ask(&call, &key, connection, waits).await
    }

    async fn ask(
        &self,
        call: &Call<'_>,
        key: &Key,
        mut connection: Connection,
        waits: Waits,
    ) -> Result<Response, Error> {
        let request = self.request(call, &connection)?;
        let response = timeout(waits.answer, connection.sender.send_request(request))
            .await
            .map_err(|_| Error::Slow { what: "answered", wait: waits.answer })??;
        let (head, body) = response.into_parts();
        let connection = Some((self.clone(), key.clone(), connection));
        let mut response = Response { status: head.status, headers: head.headers, body, connection };
        if response.body.is_end_stream() {
            response.give_back().await;
        }
        Ok(response)
    }

    fn request(&self, call: &Call<'_>, connection: &Connection) -> Result<Request<Full<Bytes>>, Error> {
        let target = match &connection.by_proxy {
            Some(_) => call.address.absolute(),
            None => call.address.target().to_owned(),
        };
        let builder = Request::builder().method(call.method.clone()).uri(target);
        let mut request = builder.body(Full::new(call.body.clone()))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, self.0.user_agent.clone());
        headers.extend(call.headers.clone());
        headers.insert(
            HOST,
            HeaderValue::from_str(&call.address.authority()).map_err(hyper::http::Error::from)?,
        );
        if let Some(Some(credentials)) = &connection.by_proxy {
            headers.insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        Ok(request)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

// === impl Response ===

impl Response {
    /// How many bytes the body has, if that is told.
    pub fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// What comes next of the body; `None` at its end. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// [`Error::Http`] when the connection ends before the body does.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        self.give_back().await;
        Ok(None)
    }

    /// The whole body, which may have so many bytes and take so long.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoLength`], [`Error::Encoding`], [`Error::Slow`], or that the connection ended.
    pub async fn whole(mut self, limit: u64, wait: Duration) -> Result<Vec<u8>, Error> {
        let reading = whole(&self.headers, &mut self.body, limit);
        let bytes =
            timeout(wait, reading).await.map_err(|_| Error::Slow { what: "answered completely", wait })??;
        self.give_back().await;
        Ok(bytes)
    }

    /// Reads what is left of a short body that nobody wants, so that the connection can be used again.
    pub async fn discard(self) {
        if self.length().is_some_and(|length| length <= SHORT) {
            let _ = self.whole(SHORT, SHORT_TIME).await;
        }
    }

    /// Leaves the connection to the next request.
    async fn give_back(&mut self) {
        if let Some((client, key, connection)) = self.connection.take() {
            client.0.pool.put(key, connection).await;
        }
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
