//! Tests that need more than one module: values for all of them, the ports' fake, whole lives of pods.

mod addresses;
mod clock;
mod configuration;
mod devices;
mod ending;
mod ephemeral;
mod every;
mod fake;
mod hooks;
mod host_ports;
mod measuring;
mod node;
mod planning;
mod probing;
mod random;
mod reboot;
mod restart_rules;
mod scenarios;
mod seeing;
mod shutdown;
mod sidecars;
pub(crate) mod values;
