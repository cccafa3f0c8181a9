//! gRPC's status: how a call ended.

use hyper::StatusCode;
use hyper::header::HeaderMap;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) message: String,
}

/// The codes, spelled as grpc-go prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// grpc-go: `OK`, which no message holds.
    Ok,
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

const CODES: [Code; 17] = [
    Code::Ok,
    Code::Canceled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

// === impl Status ===

impl Status {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What trailers say; nothing without `grpc-status`.
    pub(super) fn of_trailers(trailers: &HeaderMap) -> Option<Self> {
        let text = trailers.get("grpc-status")?;
        let number = text.to_str().ok().and_then(|text| text.parse::<usize>().ok());
        let code = number.and_then(|number| CODES.get(number).copied()).unwrap_or(Code::Unknown);
        let message = trailers.get("grpc-message").map(|value| decode(value.as_bytes()));
        Some(Self::new(code, message.unwrap_or_default()))
    }

    /// What a response of something that is no gRPC server says (gRPC's `http-grpc-status-mapping`).
    pub(super) fn of_http(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        let reason = status.canonical_reason().unwrap_or_default();
        let number = status.as_u16();
        Self::new(code, format!("unexpected HTTP status code received from server: {number} ({reason})"))
    }

    /// An OK that should have come with more is a fault of the server.
    pub(super) fn or_internal(self, message: &str) -> Self {
        if self.code == Code::Ok { Self::new(Code::Internal, message) } else { self }
    }
}

/// Takes the percent encoding out of a `grpc-message`.
fn decode(text: &[u8]) -> String {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                // Two hexadecimal digits fit.
                bytes.push((high << 4 | low) as u8);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers() {
        let status = |pairs: &[(&'static str, &'static str)]| {
            let mut trailers = HeaderMap::new();
            for (name, value) in pairs {
                trailers.insert(*name, value.parse().unwrap());
            }
            Status::of_trailers(&trailers)
        };
        assert_eq!(status(&[("other", "0")]), None);
        assert_eq!(status(&[("grpc-status", "0")]), Some(Status::new(Code::Ok, "")));
        assert_eq!(
            status(&[("grpc-status", "5"), ("grpc-message", "no 100%25 %zz %C3%BC%")]),
            Some(Status::new(Code::NotFound, "no 100% %zz ü%"))
        );
        for odd in ["17", "-1", "x", ""] {
            assert_eq!(
                status(&[("grpc-status", odd)]).map(|status| status.code),
                Some(Code::Unknown),
                "{odd}"
            );
        }
        for (number, code) in CODES.iter().enumerate() {
            assert_eq!(*code as usize, number);
        }
    }
}
