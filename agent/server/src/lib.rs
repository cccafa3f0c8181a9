//! The kubelet HTTP API over a unix socket.
