//! The wire format between the agent and pause.
