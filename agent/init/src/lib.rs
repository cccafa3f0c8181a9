//! The small static program that turns itself into the container.
