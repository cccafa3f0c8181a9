//! Tests that need more than one module: values for all of them, the ports' fake, whole lives of pods.

mod configuration;
mod fake;
mod node;
mod planning;
mod probing;
mod random;
mod scenarios;
mod seeing;
pub(crate) mod values;
