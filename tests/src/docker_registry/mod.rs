//! Debian's `docker-registry`: the real one, on a port of the loopback, with storage of a test's own.

mod push;
mod tokens;

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub use tokens::Tokens;

use crate::registry::{Authority, Certificate};
use crate::wait::{SOON, wait_for};

/// Whom [`Access::Basic`] and [`Tokens`] let in.
pub const USER: &str = "puller";

/// By which password.
pub const PASSWORD: &str = "correct horse";

/// Both, as `htpasswd -nbBC 4` writes them.
const HTPASSWD: &str = "puller:$2y$04$1R9J.Qbn.rPzaJdVJWiCceQWzmFiBUWsvnSdheCL7xmQbwKFCsJgK\n";

/// Who may pull and push.
#[derive(Default)]
pub enum Access<'a> {
    /// Everybody.
    #[default]
    Anybody,
    /// [`USER`] with [`PASSWORD`].
    Basic,
    /// Whoever has a token of this service's.
    Tokens(&'a Tokens),
}

/// A registry, which ends when it is dropped.
pub struct DockerRegistry {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
    /// The root of its certificate, in DER.
    root: Option<Vec<u8>>,
    /// What whoever pushes shows, for a repository.
    authorization: Authorization,
}

enum Authorization {
    None,
    Basic,
    Tokens(tokens::Mint),
}

// === impl DockerRegistry ===

impl DockerRegistry {
    /// One without TLS, for everybody.
    pub fn start() -> Self {
        Self::start_as(None, Access::Anybody)
    }

    /// One in TLS, if it is given a certificate of an authority's for 127.0.0.1, and for those who may.
    pub fn start_as(tls: Option<(&Authority, &Certificate)>, access: Access<'_>) -> Self {
        Self::start_by(Command::new("docker-registry"), "127.0.0.1:0", tls, access)
    }

    /// As [`Self::start_as`], by a command of one's own, such as one that enters a network namespace, and at an address,
    /// whose port may be 0.
    pub fn start_by(
        mut command: Command,
        address: &str,
        tls: Option<(&Authority, &Certificate)>,
        access: Access<'_>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path();
        let mut config = format!(
            "version: 0.1\n\
             log: {{level: info, formatter: text, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {0}/storage}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: {address}\n  secret: test\n",
            path.display()
        );
        if let Some((_, certificate)) = tls {
            let (certificate, key) = certificate.write(path, "server");
            config += &format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
        }
        let authorization = match access {
            Access::Anybody => Authorization::None,
            Access::Basic => {
                fs::write(path.join("htpasswd"), HTPASSWD).expect("the directory is writable");
                config +=
                    &format!("auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n", path.display());
                Authorization::Basic
            }
            Access::Tokens(tokens) => {
                tokens.root().write(&path.join("tokens.pem"));
                config += &format!(
                    "auth: {{token: {{realm: \"{}\", service: {}, issuer: {}, rootcertbundle: {}/tokens.pem}}}}\n",
                    tokens.realm(),
                    tokens::SERVICE,
                    tokens::ISSUER,
                    path.display()
                );
                Authorization::Tokens(tokens.mint())
            }
        };
        fs::write(path.join("config.yml"), config).expect("the directory is writable");
        let log = File::create(path.join("log")).expect("the directory is writable");
        let child = command
            .args(["serve".as_ref(), path.join("config.yml").as_os_str()])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be used twice"))
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed (scripts/install-missing test)");
        let root = tls.map(|(authority, _)| authority.der().to_vec());
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut registry = Self { child, address, directory, root, authorization };
        registry.address = registry.listening();
        registry
    }

    /// Where it says that it listens.
    fn listening(&mut self) -> SocketAddr {
        wait_for("docker-registry to listen", SOON, || {
            let log = self.log();
            let ended = self.child.try_wait().expect("it is a child of ours");
            assert!(ended.is_none(), "docker-registry has ended: {log}");
            let (_, rest) = log.split_once("listening on ")?;
            // The line must be whole.
            let (line, _) = rest.split_once('\n')?;
            line.split([',', '"', ' ']).next()?.parse().ok()
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Host and port, as names of images have them.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What it has written so far: among it a line for each request.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Its directory: `storage` is what it has.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let ended: io::Result<()> = self.child.kill();
        if ended.is_ok() {
            let _ = self.child.wait();
        }
    }
}
