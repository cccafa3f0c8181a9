//! Numbers that differ from run to run, and can be had again from the seed that a run prints.

use std::time::SystemTime;

/// xorshift64: enough for what tests choose at random.
pub struct Random(u64);

// === impl Random ===

impl Random {
    /// Seeded by `CORACLE_TEST_SEED`, else by the time; prints the seed.
    pub fn new() -> Self {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
        let seed = std::env::var("CORACLE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(time as u64 | 1);
        println!("CORACLE_TEST_SEED={seed}");
        Self(seed)
    }

    /// 0 to `limit` - 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of them, if there is any.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let limit = all.len() as u64;
        (limit > 0).then(|| &all[self.below(limit) as usize])
    }
}

/// Bytes that nothing makes smaller, the same for the same seed, which must not be 0.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let (mut random, mut bytes) = (Random(seed), Vec::with_capacity(length + 8));
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
