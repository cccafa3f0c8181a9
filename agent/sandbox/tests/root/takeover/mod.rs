//! An agent takes over what one before it has left, wherever that was killed.

pub(crate) mod killed;
pub(crate) mod place;
mod starts;
mod unanswered;
