//! A program's streams over a WebSocket, as Kubernetes defines it: `v5.channel.k8s.io` and
//! `v4.channel.k8s.io`.
//!
//! The program's end is a `metav1.Status` on the error channel. v5 adds the close channel, by which a
//! client ends standard input and still reads on.

mod pump;

use serde::{Deserialize, Serialize};

pub(crate) use self::pump::run;

/// The first byte of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// One `metav1.Status`, when the program ended.
    Error = 3,
    /// A terminal's size, as JSON.
    Resize = 4,
    /// v5: the message's one further byte names a channel that ended.
    Close = crate::websocket::CLOSE,
}

// === impl Channel ===

impl Channel {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Error,
            4 => Self::Resize,
            crate::websocket::CLOSE => Self::Close,
            _ => return None,
        })
    }
}
