//! Kubernetes YAML and JSON to and from the model: decode, default, validate.
