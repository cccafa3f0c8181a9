//! Where a reference leads within a host (RFC 3986, section 5.2).

/// The path and query that a path, or less than that, stands for in an answer to a request for `target`, which is a path
/// and a query too. A fragment is left away.
pub fn resolve(target: &str, reference: &str) -> String {
    let reference = reference.split('#').next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    if reference.is_empty() {
        return target.to_owned();
    }
    if reference.starts_with('/') {
        return without_dots(reference);
    }
    if reference.starts_with('?') {
        return format!("{path}{reference}");
    }
    let directory = &path[..path.rfind('/').map_or(0, |at| at + 1)];
    without_dots(&format!("{directory}{reference}"))
}

/// Takes `.` and `..` out of a path; a query stays as it is.
fn without_dots(reference: &str) -> String {
    let (path, query) = reference.split_at(reference.find('?').unwrap_or(reference.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if !matches!(segment, "." | "..") {
            kept.push(segment);
            continue;
        }
        if segment == ".." {
            kept.pop();
        }
        // A directory keeps its slash.
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}
