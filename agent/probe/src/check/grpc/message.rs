//! `HealthCheckRequest` and `HealthCheckResponse` of `grpc.health.v1`, in protobuf's encoding and gRPC's framing.

use super::status::{Code, Status};

/// `ServingStatus.SERVING`.
pub(super) const SERVING: u64 = 1;

/// The name of a `ServingStatus`.
pub(super) fn serving_status(number: u64) -> String {
    match number {
        0 => "UNKNOWN".to_owned(),
        SERVING => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

/// `HealthCheckRequest { service = 1 }`, not compressed, behind its length.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 8);
    // The default, an empty string, is not sent.
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = Vec::with_capacity(message.len() + 5);
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// The `status = 1` of a `HealthCheckResponse`.
pub(super) fn response(frame: &[u8]) -> Result<u64, Status> {
    let broken = || Status::new(Code::Internal, "the response is no HealthCheckResponse");
    let Some((&[compressed, a, b, c, d], mut message)) = frame.split_first_chunk() else {
        return Err(Status::new(Code::Internal, "the response has no message"));
    };
    if compressed != 0 {
        return Err(Status::new(Code::Internal, "the response is compressed, which was not asked for"));
    }
    if message.len() != u32::from_be_bytes([a, b, c, d]) as usize {
        return Err(Status::new(
            Code::Internal,
            "the response does not have one message of the length it says",
        ));
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message).ok_or_else(broken)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut message).ok_or_else(broken)?,
            // Fields of a later version.
            (_, 0) => drop(take_varint(&mut message).ok_or_else(broken)?),
            (_, 1) => message = message.get(8..).ok_or_else(broken)?,
            (_, 2) => {
                let length = take_varint(&mut message).and_then(|length| usize::try_from(length).ok());
                message = length.and_then(|length| message.get(length..)).ok_or_else(broken)?;
            }
            (_, 5) => message = message.get(4..).ok_or_else(broken)?,
            _ => return Err(broken()),
        }
    }
    Ok(status)
}

fn put_varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn responses() {
        for (frame, status) in [
            (&[0, 0, 0, 0, 0][..], 0),
            (&[0, 0, 0, 0, 2, 8, 1], 1),
            (&[0, 0, 0, 0, 3, 8, 0x82, 1], 130),
            // The last of two counts; a string, a fixed64 and a fixed32 of a later version are skipped.
            (&[0, 0, 0, 0, 7, 8, 1, 0x12, 1, b'x', 8, 2], 2),
            (&[0, 0, 0, 0, 16, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 8, 1], 1),
        ] {
            assert_eq!(response(frame).unwrap(), status, "{frame:?}");
        }
        for broken in [
            &[][..],
            &[0, 0, 0],
            &[1, 0, 0, 0, 0],
            &[0, 0, 0, 0, 3, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 2, 8, 0x80],
            &[0, 0, 0, 0, 2, 0x12, 9],
            &[0, 0, 0, 0, 1, 0x0b],
            &[0, 0, 0, 0, 12, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert!(response(broken).is_err(), "{broken:?}");
        }
    }
}
