//! An agent takes over what one before it has left, wherever that was killed.

mod killed;
mod place;
mod starts;
mod unanswered;
