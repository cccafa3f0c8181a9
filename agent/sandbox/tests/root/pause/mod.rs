//! pause, started and spoken with as the agent does.

mod children;
mod harness;
mod hostile;
mod life;
mod sandbox;
mod shared_pid;
