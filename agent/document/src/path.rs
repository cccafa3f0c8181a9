//! Field paths as Kubernetes writes them: `spec.containers[0].ports[1].hostPort`.

use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A field of an object: `.name`.
    Field(String),
    /// An element of a list: `[0]`.
    Index(usize),
    /// An entry of a map with free keys: `[key]`.
    Key(String),
}

/// A path built on the stack while descending; it costs nothing until an error needs it.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

/// A path of its own, kept with an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(pub Vec<Segment>);

// === impl Path ===

impl<'a> Path<'a> {
    /// The document itself.
    pub const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// The path of a field.
    pub fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// The path of an element.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// The path of an entry of a map with free keys.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    /// The path to keep.
    pub fn to_path(self) -> FieldPath {
        let mut segments = Vec::new();
        let mut at = Some(&self);
        while let Some(path) = at {
            match path.step {
                Step::Root => {}
                Step::Field(name) => segments.push(Segment::Field(name.to_owned())),
                Step::Index(index) => segments.push(Segment::Index(index)),
                Step::Key(key) => segments.push(Segment::Key(key.to_owned())),
            }
            at = path.parent;
        }
        segments.reverse();
        FieldPath(segments)
    }
}

// === impl FieldPath ===

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if position == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_as_kubernetes_does() {
        let root = Path::ROOT;
        let (spec, containers) = (root.child("spec"), "containers");
        let list = spec.child(containers);
        let first = list.index(0);
        let limits = first.child("limits");
        assert_eq!(
            limits.key("nvidia.com/gpu").to_path().to_string(),
            "spec.containers[0].limits[nvidia.com/gpu]"
        );
        assert_eq!(root.to_path().to_string(), "");
    }
}
