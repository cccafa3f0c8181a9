//! Any bytes as the record of who has which device: it says nothing, or what it says is said again when it is written. Most
//! would fail for their checksum alone, so they are read a second time as what follows the right one.

#![no_main]

use coracle_device_manager::Checkpoint;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fn check(bytes: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::decode(bytes) {
        let written = checkpoint.encode().expect("it can be written");
        assert_eq!(Checkpoint::decode(&written), Ok(checkpoint));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let sum: String = Sha256::digest(bytes).iter().map(|octet| format!("{octet:02x}")).collect();
    check(&[sum.as_bytes(), b"\n", bytes].concat());
});
