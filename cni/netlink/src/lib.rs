//! rtnetlink in batches: links, addresses, routes, bridges and queueing disciplines, in any network namespace.
