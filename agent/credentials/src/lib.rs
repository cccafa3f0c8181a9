//! Who has which credentials for a registry: docker configurations (of the host, and of `imagePullSecrets`), credential
//! helpers, and the kubelet's credential provider plugins.
//!
//! **Invariant:** a secret is in no message, no log line, no `Debug`, and in no file of ours.
