//! One worker per pod: plan, act, status, back-off.

pub mod ports;
