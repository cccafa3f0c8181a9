//! Content store, import, unpack and snapshots of OCI images.
