//! Pushing: the [distribution specification]'s, in as few requests as it takes.
//!
//! [distribution specification]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, DEFAULT_VERSIONS, RootCertStore, StreamOwned};

use super::{Authorization, DockerRegistry, PASSWORD, USER};
use crate::http::header;
use crate::registry::{Descriptor, Image};

/// An answer to a request.
struct Answer {
    /// Up to the empty line.
    head: String,
    body: String,
}

// === impl DockerRegistry ===

impl DockerRegistry {
    /// Pushes an image; the descriptor of its manifest.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> Descriptor {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob);
        }
        self.push_manifest(repository, tag, &image.manifest)
    }

    /// Pushes a manifest or an index, all of whose parts are there.
    pub fn push_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Descriptor {
        let media_type = manifest["mediaType"].as_str().expect("a manifest to push has a mediaType");
        let bytes = manifest.to_string().into_bytes();
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.request(repository, "PUT", &target, media_type, &bytes).expect("201");
        Descriptor::of(media_type, &bytes)
    }

    /// Pushes a blob.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let digest = Descriptor::of("", bytes).digest;
        let answer = self.request(repository, "POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        let location = answer.expect("202");
        let location = header(&location.head, "location").expect("an upload has a location").to_owned();
        // A path, or a URL of our own.
        let target = &location[location.find("/v2/").expect("it is within the API")..];
        let separator = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{separator}digest={digest}");
        self.request(repository, "PUT", &target, "application/octet-stream", bytes).expect("201");
    }

    /// Makes a request whose answer must begin with that status.
    fn request(
        &self,
        repository: &str,
        method: &str,
        target: &str,
        media_type: &str,
        body: &[u8],
    ) -> Pending {
        let authorization = match &self.authorization {
            Authorization::None => String::new(),
            Authorization::Basic => {
                let pair = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
                format!("Authorization: Basic {pair}\r\n")
            }
            Authorization::Tokens(mint) => {
                let token = mint.token(&[(repository, &["pull", "push"])]);
                format!("Authorization: Bearer {token}\r\n")
            }
        };
        let content_type = match media_type {
            "" => String::new(),
            media_type => format!("Content-Type: {media_type}\r\n"),
        };
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{content_type}{authorization}\r\n",
            self.host(),
            body.len()
        );
        let answer = self.exchange(head.as_bytes(), body).expect("the registry answers");
        Pending { what: format!("{method} {target}"), answer }
    }

    fn exchange(&self, head: &[u8], body: &[u8]) -> io::Result<Answer> {
        let stream = TcpStream::connect(self.address)?;
        let mut stream: Box<dyn Duplex> = match &self.root {
            None => Box::new(stream),
            Some(root) => Box::new(StreamOwned::new(connection(root), stream)),
        };
        stream.write_all(head)?;
        stream.write_all(body)?;
        stream.flush()?;
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            // TLS that ends without a farewell.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            other => drop(other?),
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        Ok(Answer { head: head.to_owned(), body: body.to_owned() })
    }
}

trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}

/// An answer whose status was not looked at.
struct Pending {
    what: String,
    answer: Answer,
}

// === impl Pending ===

impl Pending {
    #[track_caller]
    fn expect(self, status: &str) -> Answer {
        let Answer { head, body } = &self.answer;
        assert!(head.split(' ').nth(1) == Some(status), "{}: {head}\n\n{body}", self.what);
        self.answer
    }
}

fn connection(root: &[u8]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root.to_vec())).expect("it is a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .expect("ring knows the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("it is an address");
    ClientConnection::new(Arc::new(config), name).expect("the configuration is one")
}
