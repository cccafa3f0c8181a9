//! `coracle check`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::style::{self, Style};
use crate::check::{Finding, Severity, run};
use crate::config::Config;

/// Show what this host lacks for running pods, and how to mend it
///
/// Everything is tried on the running kernel, not looked up by its version. Exits with 1 when something
/// is missing without which no pod can run. Run it as root, as the agent will be.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text, hide_default_value = true)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

// === impl Check ===

impl Check {
    pub(super) fn execute(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let findings = run(config);
        let mut out = io::stdout();
        match self.output {
            Output::Json => {
                serde_json::to_writer_pretty(&mut out, &findings).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            Output::Text => print(&findings, style::wanted(&out), &mut out)?,
        }
        let missing = findings.iter().any(|finding| finding.severity == Severity::Missing);
        Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn print(findings: &[Finding], colour: bool, out: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        let (word, style) = match finding.severity {
            Severity::Ok => ("ok", Style::Good),
            Severity::Weaker => ("weaker", Style::Pending),
            Severity::Missing => ("missing", Style::Bad),
        };
        let padded = format!("{word:<9}");
        if colour {
            write!(out, "{}", style.paint(&padded))?;
        } else {
            write!(out, "{padded}")?;
        }
        writeln!(out, "{}: {}", finding.name, finding.found)?;
        for line in [&finding.effect, &finding.remedy].into_iter().flatten() {
            writeln!(out, "         {line}")?;
        }
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    match (count(Severity::Missing), count(Severity::Weaker)) {
        (0, 0) => writeln!(out, "\nThis host can run pods, and nothing is weaker than it could be."),
        (0, weaker) => {
            writeln!(out, "\nThis host can run pods; {weaker} of its parts are weaker than they could be.")
        }
        (missing, _) => writeln!(out, "\nThis host cannot run pods: {missing} essential parts are missing."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_say_what_is_weaker_and_what_to_do() {
        let findings = [
            Finding::ok("kernel", "6.1"),
            Finding::weaker("AppArmor", "off", "containers are not confined by it", "boot with apparmor=1"),
        ];
        let mut out = Vec::new();
        print(&findings, false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ok       kernel: 6.1\nweaker   AppArmor: off\n         containers are not confined by it\n         \
             boot with apparmor=1\n\nThis host can run pods; 1 of its parts are weaker than they could be.\n"
        );
    }
}
