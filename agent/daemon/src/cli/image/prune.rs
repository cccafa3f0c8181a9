//! `coracle image prune`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use coracle_image::{CollectPolicy, HeldImage, Hold, Store};
use coracle_server::client::Client;
use jiff::SignedDuration;

use super::users::Users;
use super::{after, short, size};

/// Remove images that nobody uses
///
/// Without --all those that have lost their names to others. What a pod wants, a container uses or that is pinned stays.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle image prune
  coracle image prune --all --filter until=24h")]
pub(super) struct Prune {
    /// Also images with names, and what interrupted pulls have left to go on with
    #[arg(short, long)]
    all: bool,
    /// Only what came longer ago: until=DURATION, such as until=24h
    #[arg(long, value_name = "FILTER", value_parser = until)]
    filter: Option<Duration>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

// === impl Prune ===

impl Prune {
    pub(super) fn execute(self, store: &Store, client: &Client) -> anyhow::Result<ExitCode> {
        if !self.force && !self.is_wanted()? {
            return Ok(ExitCode::FAILURE);
        }
        let users = Users::ask(client, store)?;
        let policy = CollectPolicy {
            wanted: u64::MAX,
            min_age: self.filter.unwrap_or_default(),
            max_unused: None,
            only_untagged: !self.all,
            in_flight: self.all,
        };
        let collected = store.collect(&policy, |id| users.of(id))?;
        let mut out = io::stdout();
        for image in &collected.images {
            let (id, names) = (short(&image.id), after(&image.names));
            writeln!(out, "deleted {id}{names} ({} freed)", size(image.freed))?;
        }
        writeln!(out, "{} freed", size(collected.freed))?;
        if collected.freed == 0 {
            for image in collected.held.iter().filter(|image| self.all || is_untagged(image)) {
                let (id, names) = (short(&image.id), after(&image.names));
                writeln!(out, "kept {id}{names} ({}), {}", size(image.size), why(&image.why))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks whoever sits there. Nobody does where standard input is no terminal.
    fn is_wanted(&self) -> io::Result<bool> {
        let mut stdin = io::stdin().lock();
        if !stdin.is_terminal() {
            return Ok(true);
        }
        let what = if self.all { "all images that nobody uses" } else { "all images without a name" };
        eprint!("This removes {what}. Go on? [y/N] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        stdin.read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

fn is_untagged(image: &HeldImage) -> bool {
    image.names.iter().all(|name| name.digest().is_some())
}

fn why(hold: &Hold) -> String {
    match hold {
        Hold::InUse(user) => format!("used by {user}"),
        Hold::Pinned(pins) => pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Hold::TooYoung => "younger than --filter says".to_owned(),
    }
}

fn until(text: &str) -> Result<Duration, String> {
    let known = "must be until=DURATION, such as until=24h";
    let duration = text.strip_prefix("until=").ok_or(known)?;
    let duration: SignedDuration = duration.parse().map_err(|_| known.to_owned())?;
    Duration::try_from(duration).map_err(|_| known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_dockers() {
        assert_eq!(until("until=24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(until("until=1h30m"), Ok(Duration::from_secs(5400)));
        for text in ["24h", "until=", "until=-1h", "label=x", "until=x"] {
            assert!(until(text).is_err(), "{text}");
        }
    }
}
