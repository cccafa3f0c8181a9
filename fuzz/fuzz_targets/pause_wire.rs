//! What pause and the agent read from each other and from the ledger.

#![no_main]

use coracle_pause_wire::{LedgerRecord, MAX_MESSAGE, Message, Request, StartupStatus};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut buffer = [0; MAX_MESSAGE];
    if let (sequence, Ok(request)) = Request::decode(bytes) {
        let length = request.encode(sequence, &mut buffer).expect("what was read can be written");
        assert_eq!(Request::decode(&buffer[..length]), (sequence, Ok(request)));
    }
    if let Some((sequence, message)) = Message::decode(bytes) {
        if let Message::Page { entries, .. } = &message {
            assert_eq!(entries.iter().count(), entries.len());
        }
        if let Some(length) = message.encode(sequence, &mut buffer) {
            assert_eq!(Message::decode(&buffer[..length]), Some((sequence, message)));
        }
    }
    if let Some(record) = bytes.first_chunk().and_then(LedgerRecord::decode) {
        assert_eq!(LedgerRecord::decode(&record.encode()), Some(record));
    }
    let _ = StartupStatus::decode(bytes);
});
