//! What a client is told.

use std::path::PathBuf;
use std::time::Duration;

use coracle_fetch::Proxies;

use crate::Platform;

/// How registries are asked.
#[derive(Debug)]
pub struct Settings {
    /// Directories in containerd's layout (`certs.d`): `<host>/hosts.toml`. The first that has one for a host counts.
    pub hosts_dirs: Vec<PathBuf>,
    /// By which proxies.
    pub proxies: Proxies,
    /// As what.
    pub user_agent: String,
    /// How long, and how often.
    pub limits: Limits,
    /// For what machine.
    pub platform: Platform,
}

/// What asking may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long connecting may take, proxy and TLS among it, where hosts.toml says nothing else.
    pub connect: Duration,
    /// How long the head of an answer may take.
    pub answer: Duration,
    /// How long a document may take to arrive.
    pub document: Duration,
    /// How long a blob may send nothing.
    pub stall: Duration,
    /// How many bytes a second must come, on the average of `rate_time` of waiting for them.
    pub least_rate: u64,
    /// See `least_rate`.
    pub rate_time: Duration,
    /// How often all hosts are asked, the first time among it. What has brought a blob forward by
    /// [`Limits::progress`] bytes begins anew.
    pub attempts: u32,
    /// See `attempts`.
    pub progress: u64,
    /// How long the first wait between two attempts is; each is twice as long as the one before. A part of it is
    /// random.
    pub back_off: Duration,
    /// How long such a wait is at most.
    pub longest_back_off: Duration,
    /// How long `Retry-After` is heeded within a request; what asks for longer is told to who asked.
    pub longest_retry_after: Duration,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            document: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            least_rate: 1024,
            rate_time: Duration::from_secs(30),
            attempts: 5,
            progress: 1 << 20,
            back_off: Duration::from_millis(500),
            longest_back_off: Duration::from_secs(10),
            longest_retry_after: Duration::from_secs(30),
        }
    }
}
