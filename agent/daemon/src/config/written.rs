//! The configuration as text: the file of all defaults, and the tables of the documentation.

use std::fmt::Write as _;

use serde_json::Value;

#[cfg(test)]
use super::kubelet::table::{FIELDS as KUBELET_FIELDS, Fate};
use super::table::{Change, Default, FIELDS};

/// What `apiVersion` and `kind` are in a file that has them.
pub(crate) const VERSION: &str = "kubelet.config.k8s.io/v1beta1";
pub(crate) const KIND: &str = "KubeletConfiguration";

/// The longest a line of the file of defaults gets.
const WIDTH: usize = 100;

/// A file that says what is so without one: every field with its default, and what it means.
pub(crate) fn defaults() -> String {
    let mut text = "# The configuration of a node of Coracle, /etc/coracle/config.yaml, with every default.\n\
                    #\n\
                    # Fields are named as in the kubelet's KubeletConfiguration where they mean the same. A field that is left\n\
                    # out has its default. `coracle config check` says what is wrong with a file, and `systemctl reload coracle`\n\
                    # makes the node read it again.\n\
                    apiVersion: kubelet.config.k8s.io/v1beta1\n\
                    kind: KubeletConfiguration\n"
        .to_owned();
    for field in FIELDS {
        text.push('\n');
        let when = match field.change {
            Change::Live => "",
            Change::Start => " A change counts when the agent starts.",
        };
        let default = match field.default {
            Default::Value(_) => String::new(),
            Default::Below(name) => format!(" Default: {name}/ of rootDir."),
            Default::Nothing(what) => format!(" Default: {what}."),
        };
        let own = if field.kubelet { "" } else { " Not in KubeletConfiguration." };
        for line in wrap(&format!("{}{when}{default}{own}", field.meaning)) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = match field.default {
            Default::Value("") => writeln!(text, "{}: \"\"", field.name),
            Default::Value(value) => writeln!(text, "{}: {value}", field.name),
            // What follows from another setting, or from the host, would no longer do so if it stood here.
            Default::Below(_) | Default::Nothing(_) => writeln!(text, "#{}: {}", field.name, field.example),
        };
    }
    text
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The settings as YAML, one field after another, with who has given each where `origin` says so.
pub(crate) fn yaml(
    settings: impl Iterator<Item = (&'static str, Value, Option<String>)>,
) -> anyhow::Result<String> {
    let mut text = String::new();
    for (name, value, origin) in settings {
        let written = serde_saphyr::to_string(&serde_json::json!({ name: value }))?;
        let mut lines = written.lines();
        text.push_str(lines.next().unwrap_or_default());
        if let Some(origin) = origin {
            let _ = write!(text, "  # {origin}");
        }
        text.push('\n');
        lines.for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
    }
    Ok(text)
}

/// The table of the fields that the node acts on, in Markdown.
#[cfg(test)]
pub(super) fn own_table() -> String {
    let mut text = "| field | means | default | a change counts |\n|---|---|---|---|\n".to_owned();
    for field in FIELDS {
        let default = match field.default {
            Default::Value("") => "empty".to_owned(),
            Default::Value(value) => format!("`{value}`"),
            Default::Below(name) => format!("`{name}/` of `rootDir`"),
            Default::Nothing(what) => what.to_owned(),
        };
        let when = match field.change {
            Change::Live => "at once",
            Change::Start => "at the next start",
        };
        let of = if field.kubelet { "" } else { " *" };
        let _ = writeln!(text, "| `{}`{of} | {} | {default} | {when} |", field.name, cell(field.meaning));
    }
    text
}

#[cfg(test)]
fn cell(text: &str) -> String {
    text.replace('<', "\\<").replace('*', "\\*").replace('|', "\\|")
}

/// The table of the kubelet's other fields, in Markdown.
#[cfg(test)]
pub(super) fn kubelet_table() -> String {
    let mut text = "| field | accepted | because |\n|---|---|---|\n".to_owned();
    for field in KUBELET_FIELDS {
        let accepted = match field.fate {
            Fate::NoEffect => "with a warning: no effect".to_owned(),
            Fate::Same([]) => "no".to_owned(),
            Fate::Same(values) => {
                let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.text())).collect();
                format!("only as {}", values.join(" or "))
            }
        };
        let _ = writeln!(text, "| `{}` | {accepted} | {} |", field.name, field.why);
    }
    text
}
